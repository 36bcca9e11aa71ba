// calls: timerfd_create timerfd_settime timerfd_gettime read
// flags: TFD_NONBLOCK
// what: a one-shot timer is EAGAIN before and 1 after its time, once; disarmed it stays silent
#include "../check.h"
#include <sys/timerfd.h>

int main(void)
{
	struct itimerspec once = { .it_value = { 0, 20000000 } }, never = { 0 }, found;
	uint64_t expired = 0;
	int timer = MUST(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));
	VALUE(read(timer, &expired, 8));
	VALUE(timerfd_settime(timer, 0, &once, NULL));
	VALUE(timerfd_gettime(timer, &found));
	HOLDS(found.it_value.tv_sec == 0 && found.it_value.tv_nsec <= 20000000 && found.it_interval.tv_nsec == 0);
	struct pollfd entry = { timer, POLLIN, 0 };
	VALUE(poll(&entry, 1, 5000));
	VALUE(read(timer, &expired, 8));
	VALUE(expired);
	VALUE(read(timer, &expired, 8));
	MUST(timerfd_settime(timer, 0, &once, NULL));
	VALUE(timerfd_settime(timer, 0, &never, &found));
	VALUE(poll(&entry, 1, 30));
	VALUE(read(timer, &expired, 4));
	return 0;
}
