// calls: timerfd_create timerfd_settime
// flags: none
// what: unknown clocks and flags, bad nanoseconds and other descriptors are errors
#include "../check.h"
#include <sys/timerfd.h>

int main(void)
{
	struct itimerspec bad = { .it_value = { 0, 1000000000 } }, negative = { .it_value = { -1, 0 } }, good = { 0 };
	int timer = MUST(timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC));
	VALUE(fcntl(timer, F_GETFD));
	VALUE(timerfd_create(99, 0));
	VALUE(timerfd_create(CLOCK_PROCESS_CPUTIME_ID, 0));
	VALUE(timerfd_create(CLOCK_MONOTONIC, 0x100));
	VALUE(timerfd_settime(timer, 0, &bad, NULL));
	VALUE(timerfd_settime(timer, 0, &negative, NULL));
	VALUE(timerfd_settime(timer, 0x100, &good, NULL));
	VALUE(timerfd_settime(1, 0, &good, NULL));
	VALUE(timerfd_settime(1000, 0, &good, NULL));
	VALUE(timerfd_gettime(timer, (void *)8));
	VALUE(write(timer, &good, 8));
	return 0;
}
