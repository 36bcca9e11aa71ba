// calls: timer_create timer_settime timer_gettime timer_delete
// flags: SIGEV_SIGNAL SI_TIMER
// what: a timer sends the signal and value that it was made with
#include "../check.h"

int main(void)
{
	struct sigevent how = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1, .sigev_value.sival_int = 55 };
	struct itimerspec once = { .it_value = { 0, 10000000 } }, found;
	siginfo_t info;
	timer_t timer;
	sigset_t set;
	sigemptyset(&set), sigaddset(&set, SIGUSR1);
	MUST(sigprocmask(SIG_BLOCK, &set, NULL));
	VALUE(timer_create(CLOCK_MONOTONIC, &how, &timer));
	VALUE(timer_gettime(timer, &found));
	HOLDS(found.it_value.tv_sec == 0 && found.it_value.tv_nsec == 0);
	VALUE(timer_settime(timer, 0, &once, NULL));
	HOLDS(sigwaitinfo(&set, &info) == SIGUSR1);
	HOLDS(info.si_code == SI_TIMER && info.si_value.sival_int == 55);
	VALUE(timer_getoverrun(timer));
	once.it_value.tv_nsec = 1000000000;
	VALUE(timer_settime(timer, 0, &once, NULL));
	VALUE(timer_delete(timer));
	VALUE(timer_create(99, &how, &timer));
	how.sigev_signo = 99;
	VALUE(timer_create(CLOCK_MONOTONIC, &how, &timer));
	return 0;
}
