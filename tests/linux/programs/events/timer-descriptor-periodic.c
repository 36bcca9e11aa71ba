// calls: timerfd_settime read
// flags: it_interval
// what: a periodic timer counts every expiry; a blocking read waits for the next one
#include "../check.h"
#include <sys/timerfd.h>

int main(void)
{
	struct itimerspec periodic = { .it_value = { 0, 5000000 }, .it_interval = { 0, 5000000 } }, found;
	uint64_t expired = 0, sum = 0;
	int timer = MUST(timerfd_create(CLOCK_MONOTONIC, 0));
	long start = now_ms();
	MUST(timerfd_settime(timer, 0, &periodic, NULL));
	while (sum < 6) {
		MUST(read(timer, &expired, 8));
		sum += expired;
	}
	HOLDS(now_ms() - start >= 29);
	sleep_ms(25);
	MUST(read(timer, &expired, 8));
	HOLDS(expired >= 4);
	MUST(timerfd_gettime(timer, &found));
	HOLDS(found.it_interval.tv_nsec == 5000000);
	HOLDS(found.it_value.tv_nsec > 0 && found.it_value.tv_nsec <= 5000000);
	return 0;
}
