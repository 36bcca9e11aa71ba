// calls: signalfd4
// flags: none
// what: the mask of a signal descriptor can be changed; signals outside it are left alone
#include "../check.h"
#include <sys/signalfd.h>

int main(void)
{
	struct signalfd_siginfo info;
	sigset_t both, one;
	sigemptyset(&both), sigaddset(&both, SIGUSR1), sigaddset(&both, SIGUSR2);
	sigemptyset(&one), sigaddset(&one, SIGUSR2);
	MUST(sigprocmask(SIG_BLOCK, &both, NULL));
	int signals = MUST(signalfd(-1, &one, SFD_NONBLOCK));
	raise(SIGUSR1);
	VALUE(read(signals, &info, sizeof info));
	HOLDS(signalfd(signals, &both, 0) == signals);
	HOLDS(read(signals, &info, sizeof info) == sizeof info);
	HOLDS(info.ssi_signo == SIGUSR1);
	raise(SIGUSR2);
	int number;
	MUST(sigwait(&both, &number));
	HOLDS(number == SIGUSR2);
	VALUE(read(signals, &info, sizeof info));
	return 0;
}
