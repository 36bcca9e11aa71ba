// calls: clock_gettime clock_getres gettimeofday time
// flags: CLOCK_REALTIME CLOCK_MONOTONIC CLOCK_BOOTTIME CLOCK_MONOTONIC_RAW CLOCK_REALTIME_COARSE
// what: all clocks can be read, have a resolution, and agree; unknown ones are EINVAL
#include "../check.h"
#include <sys/time.h>

int main(void)
{
	clockid_t clocks[] = { CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID,
						   CLOCK_MONOTONIC_RAW, CLOCK_REALTIME_COARSE, CLOCK_MONOTONIC_COARSE, CLOCK_BOOTTIME };
	struct timespec now, resolution;
	struct timeval day;
	for (int index = 0; index < 8; index++) {
		VALUE(clock_gettime(clocks[index], &now));
		HOLDS(now.tv_sec >= 0 && now.tv_nsec >= 0 && now.tv_nsec < 1000000000);
		VALUE(clock_getres(clocks[index], &resolution));
		HOLDS(resolution.tv_sec == 0 && resolution.tv_nsec > 0);
	}
	MUST(clock_gettime(CLOCK_REALTIME, &now));
	MUST(gettimeofday(&day, NULL));
	HOLDS(day.tv_sec - now.tv_sec <= 60 && time(NULL) - now.tv_sec <= 60 && now.tv_sec > 1700000000);
	VALUE(syscall(SYS_clock_gettime, 99, &now));
	VALUE(syscall(SYS_clock_getres, 99, &now));
	VALUE(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, 8));
	return 0;
}
