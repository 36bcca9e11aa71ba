// calls: timer_settime timer_getoverrun
// flags: it_interval
// what: expiries while the signal is pending are counted, not queued
#include "../check.h"

int main(void)
{
	struct sigevent how = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1 };
	struct itimerspec periodic = { .it_value = { 0, 2000000 }, .it_interval = { 0, 2000000 } }, never = { 0 };
	struct timespec none = { 0, 0 };
	siginfo_t info;
	timer_t timer;
	sigset_t set;
	sigemptyset(&set), sigaddset(&set, SIGUSR1);
	MUST(sigprocmask(SIG_BLOCK, &set, NULL));
	MUST(timer_create(CLOCK_MONOTONIC, &how, &timer));
	MUST(timer_settime(timer, 0, &periodic, NULL));
	sleep_ms(40);
	HOLDS(sigwaitinfo(&set, &info) == SIGUSR1);
	HOLDS(timer_getoverrun(timer) >= 15);
	MUST(timer_settime(timer, 0, &never, NULL));
	sigtimedwait(&set, NULL, &none);
	VALUE(sigtimedwait(&set, NULL, &none));
	return 0;
}
