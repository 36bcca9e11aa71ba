// calls: kill rt_sigprocmask
// flags: none
// what: of several pending signals the handler of the lowest number begins first when handlers block all others
#include "../check.h"

static void handle(int number)
{
	puts(signal_name(number));
}

int main(void)
{
	struct sigaction action = { .sa_handler = handle };
	int numbers[] = { SIGTERM, SIGUSR2, SIGHUP, SIGUSR1, SIGALRM };
	sigset_t set;
	sigfillset(&action.sa_mask);
	sigfillset(&set);
	MUST(sigprocmask(SIG_BLOCK, &set, NULL));
	for (int index = 0; index < 5; index++) {
		MUST(sigaction(numbers[index], &action, NULL));
		MUST(kill(getpid(), numbers[index]));
	}
	MUST(sigprocmask(SIG_UNBLOCK, &set, NULL));
	return 0;
}
