// calls: timerfd_settime
// flags: TFD_TIMER_ABSTIME
// what: an absolute time in the past expires at once, one to come at its time, on either clock
#include "../check.h"
#include <sys/timerfd.h>

static void wait_for_clock(clockid_t clock)
{
	struct itimerspec until = { .it_value = { 1, 0 } };
	uint64_t expired = 0;
	int timer = MUST(timerfd_create(clock, 0));
	MUST(timerfd_settime(timer, TFD_TIMER_ABSTIME, &until, NULL));
	VALUE(read(timer, &expired, 8));
	VALUE(expired);
	MUST(clock_gettime(clock, &until.it_value));
	long start = now_ms();
	until.it_value.tv_nsec += 20000000;
	until.it_value.tv_sec += until.it_value.tv_nsec / 1000000000;
	until.it_value.tv_nsec %= 1000000000;
	MUST(timerfd_settime(timer, TFD_TIMER_ABSTIME, &until, NULL));
	VALUE(read(timer, &expired, 8));
	HOLDS(now_ms() - start >= 19);
}

int main(void)
{
	wait_for_clock(CLOCK_MONOTONIC);
	wait_for_clock(CLOCK_REALTIME);
	return 0;
}
