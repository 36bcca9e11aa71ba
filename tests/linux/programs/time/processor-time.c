// calls: clock_gettime getrusage times
// flags: CLOCK_PROCESS_CPUTIME_ID CLOCK_THREAD_CPUTIME_ID RUSAGE_SELF
// what: processor time advances while a program computes and hardly while it sleeps
#include "../check.h"
#include <sys/resource.h>
#include <sys/times.h>

static long processor_ms(clockid_t clock)
{
	struct timespec now;
	MUST(clock_gettime(clock, &now));
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static long milliseconds(struct timeval time)
{
	return time.tv_sec * 1000 + time.tv_usec / 1000;
}

int main(void)
{
	struct rusage usage;
	struct tms ticks;
	volatile long sum = 0;
	while (processor_ms(CLOCK_PROCESS_CPUTIME_ID) < 30)
		for (int round = 0; round < 100000; round++)
			sum += round;
	puts("30 ms computed");
	HOLDS(processor_ms(CLOCK_THREAD_CPUTIME_ID) >= 20);
	long before = processor_ms(CLOCK_PROCESS_CPUTIME_ID);
	sleep_ms(40);
	HOLDS(processor_ms(CLOCK_PROCESS_CPUTIME_ID) - before < 35);
	VALUE(getrusage(RUSAGE_SELF, &usage));
	HOLDS(milliseconds(usage.ru_utime) + milliseconds(usage.ru_stime) >= 10);
	HOLDS(usage.ru_maxrss > 0);
	HOLDS(times(&ticks) != -1 && sysconf(_SC_CLK_TCK) == 100);
	VALUE(getrusage(99, &usage));
	return 0;
}
