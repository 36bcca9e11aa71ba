// calls: rt_sigpending rt_sigprocmask kill
// flags: SIG_BLOCK SIG_UNBLOCK
// what: a blocked signal is pending, once however often it was sent, and arrives when it is unblocked
#include "../check.h"

static volatile int handled;

static void handle(int number)
{
	(void)number;
	handled++;
}

int main(void)
{
	struct sigaction action = { .sa_handler = handle };
	sigset_t set, pending;
	MUST(sigaction(SIGUSR1, &action, NULL));
	sigemptyset(&set), sigaddset(&set, SIGUSR1);
	MUST(sigprocmask(SIG_BLOCK, &set, NULL));
	VALUE(sigpending(&pending));
	HOLDS(!sigismember(&pending, SIGUSR1));
	for (int round = 0; round < 3; round++)
		kill(getpid(), SIGUSR1);
	VALUE(handled);
	sigpending(&pending);
	HOLDS(sigismember(&pending, SIGUSR1));
	VALUE(sigprocmask(SIG_UNBLOCK, &set, NULL));
	VALUE(handled);
	sigpending(&pending);
	HOLDS(!sigismember(&pending, SIGUSR1));
	return 0;
}
