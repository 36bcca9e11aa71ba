// calls: setitimer rt_sigtimedwait
// flags: ITIMER_REAL
// what: an interval timer sends SIGALRM again and again until it is disarmed
#include "../check.h"
#include <sys/time.h>

int main(void)
{
	struct itimerval periodic = { .it_value = { 0, 5000 }, .it_interval = { 0, 5000 } }, never = { 0 };
	struct timespec some = { 0, 30000000 }, none = { 0, 0 };
	sigset_t set;
	sigemptyset(&set), sigaddset(&set, SIGALRM);
	MUST(sigprocmask(SIG_BLOCK, &set, NULL));
	long start = now_ms();
	MUST(setitimer(ITIMER_REAL, &periodic, NULL));
	for (int round = 0; round < 4; round++)
		HOLDS(sigwaitinfo(&set, NULL) == SIGALRM);
	HOLDS(now_ms() - start >= 19);
	VALUE(setitimer(ITIMER_REAL, &never, NULL));
	sigtimedwait(&set, NULL, &none); /* one may have come meanwhile */
	VALUE(sigtimedwait(&set, NULL, &some));
	return 0;
}
