// calls: rt_sigaction kill
// flags: SA_RESETHAND
// what: SA_RESETHAND runs a handler once and then restores the default action, which ends the program here
#include "../check.h"

static void handle(int number)
{
	struct sigaction now;
	sigaction(number, NULL, &now);
	HOLDS(now.sa_handler == SIG_DFL);
}

int main(void)
{
	struct sigaction action = { .sa_handler = handle, .sa_flags = SA_RESETHAND };
	MUST(sigaction(SIGUSR1, &action, NULL));
	raise(SIGUSR1);
	puts("still here");
	raise(SIGUSR1);
	puts("not reached");
	return 0;
}
