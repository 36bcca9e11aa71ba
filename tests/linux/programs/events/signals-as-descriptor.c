// calls: signalfd4 read poll
// flags: SFD_NONBLOCK SFD_CLOEXEC
// what: blocked signals are read from a descriptor, with their origin and value, and are gone then
#include "../check.h"
#include <sys/signalfd.h>

int main(void)
{
	struct signalfd_siginfo infos[4];
	sigset_t set, pending;
	sigemptyset(&set), sigaddset(&set, SIGUSR1), sigaddset(&set, SIGHUP);
	MUST(sigprocmask(SIG_BLOCK, &set, NULL));
	int signals = MUST(signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC));
	struct pollfd entry = { signals, POLLIN, 0 };
	VALUE(read(signals, infos, sizeof infos));
	VALUE(poll(&entry, 1, 0));
	MUST(sigqueue(getpid(), SIGUSR1, (union sigval){ .sival_int = 77 }));
	MUST(kill(getpid(), SIGHUP));
	VALUE(poll(&entry, 1, 0));
	HOLDS(read(signals, infos, sizeof infos) == 2 * sizeof infos[0]);
	HOLDS(infos[0].ssi_signo == SIGHUP && infos[0].ssi_code == SI_USER && infos[0].ssi_pid == (uint32_t)getpid());
	HOLDS(infos[1].ssi_signo == SIGUSR1 && infos[1].ssi_code == SI_QUEUE && infos[1].ssi_int == 77);
	sigpending(&pending);
	HOLDS(!sigismember(&pending, SIGUSR1));
	VALUE(read(signals, infos, 10));
	VALUE(signalfd(-1, &set, 1));
	VALUE(signalfd(0, &set, 0));
	return 0;
}
