// calls: rt_sigtimedwait rt_sigqueueinfo
// flags: SI_QUEUE SI_TKILL
// what: a pending signal is taken with its origin without running a handler; none in time is EAGAIN
#include "../check.h"

int main(void)
{
	struct timespec none = { 0, 0 }, some = { 0, 20000000 }, bad = { 0, -1 };
	sigset_t set;
	siginfo_t info;
	sigemptyset(&set), sigaddset(&set, SIGUSR1), sigaddset(&set, SIGUSR2);
	MUST(sigprocmask(SIG_BLOCK, &set, NULL));
	VALUE(sigtimedwait(&set, &info, &none));
	VALUE(sigtimedwait(&set, &info, &some));
	VALUE(sigtimedwait(&set, &info, &bad));
	VALUE(sigqueue(getpid(), SIGUSR1, (union sigval){ .sival_int = 1234 }));
	HOLDS(sigtimedwait(&set, &info, &none) == SIGUSR1);
	HOLDS(info.si_signo == SIGUSR1 && info.si_code == SI_QUEUE && info.si_pid == getpid());
	VALUE(info.si_value.sival_int);
	raise(SIGUSR2);
	HOLDS(sigwaitinfo(&set, &info) == SIGUSR2);
	HOLDS(info.si_code == SI_TKILL);
	kill(getpid(), SIGUSR2);
	HOLDS(sigwaitinfo(&set, &info) == SIGUSR2);
	HOLDS(info.si_code == SI_USER && info.si_uid == getuid());
	return 0;
}
