// calls: rt_sigsuspend rt_sigprocmask
// flags: none
// what: sigsuspend lets a pending signal in, returns EINTR, and restores the mask
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
	sigset_t set, none, mask;
	MUST(sigaction(SIGUSR1, &action, NULL));
	sigemptyset(&none), sigemptyset(&set), sigaddset(&set, SIGUSR1);
	MUST(sigprocmask(SIG_BLOCK, &set, NULL));
	raise(SIGUSR1);
	VALUE(handled);
	VALUE(sigsuspend(&none));
	VALUE(handled);
	sigprocmask(SIG_BLOCK, NULL, &mask);
	HOLDS(sigismember(&mask, SIGUSR1));
	return 0;
}
