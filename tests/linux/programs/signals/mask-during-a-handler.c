// calls: rt_sigaction rt_sigprocmask
// flags: sa_mask
// what: the signals of sa_mask wait until the handler returns; the mask is then as before
#include "../check.h"

static void handle(int number)
{
	sigset_t mask;
	printf("%s begins\n", signal_name(number));
	if (number == SIGUSR1) {
		raise(SIGUSR2);
		sigprocmask(SIG_SETMASK, NULL, &mask);
		HOLDS(sigismember(&mask, SIGUSR1) && sigismember(&mask, SIGUSR2) && !sigismember(&mask, SIGHUP));
	}
	printf("%s ends\n", signal_name(number));
}

int main(void)
{
	struct sigaction action = { .sa_handler = handle };
	sigset_t mask;
	sigaddset(&action.sa_mask, SIGUSR2);
	MUST(sigaction(SIGUSR1, &action, NULL));
	MUST(sigaction(SIGUSR2, &action, NULL));
	raise(SIGUSR1);
	sigprocmask(SIG_SETMASK, NULL, &mask);
	HOLDS(!sigismember(&mask, SIGUSR1) && !sigismember(&mask, SIGUSR2));
	return 0;
}
