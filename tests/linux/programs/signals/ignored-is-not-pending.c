// calls: rt_sigaction rt_sigpending
// flags: SIG_IGN
// what: ignored signals vanish, and ignoring one discards what was pending
#include "../check.h"

int main(void)
{
	sigset_t set, pending;
	signal(SIGUSR1, SIG_IGN);
	raise(SIGUSR1);
	puts("ignored");
	signal(SIGUSR1, SIG_DFL);
	sigemptyset(&set), sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	raise(SIGUSR1);
	sigpending(&pending);
	HOLDS(sigismember(&pending, SIGUSR1));
	signal(SIGUSR1, SIG_IGN);
	sigpending(&pending);
	HOLDS(!sigismember(&pending, SIGUSR1));
	raise(SIGCHLD), raise(SIGURG), raise(SIGWINCH), raise(SIGCONT);
	puts("signals that are ignored by default");
	return 0;
}
