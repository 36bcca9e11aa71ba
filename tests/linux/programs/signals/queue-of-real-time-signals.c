// calls: rt_sigqueueinfo rt_sigaction
// flags: SA_SIGINFO
// what: real-time signals queue with their values, lowest number first, each number in order
#include "../check.h"

static void handle(int number, siginfo_t *info, void *context)
{
	(void)context;
	printf("SIGRTMIN + %d: %d\n", number - SIGRTMIN, info->si_value.sival_int);
}

int main(void)
{
	struct sigaction action = { .sa_sigaction = handle, .sa_flags = SA_SIGINFO };
	sigset_t set;
	sigfillset(&action.sa_mask);
	sigemptyset(&set);
	for (int offset = 1; offset < 4; offset++) {
		MUST(sigaction(SIGRTMIN + offset, &action, NULL));
		sigaddset(&set, SIGRTMIN + offset);
	}
	MUST(sigprocmask(SIG_BLOCK, &set, NULL));
	for (int value = 0; value < 9; value++)
		MUST(sigqueue(getpid(), SIGRTMIN + 3 - value % 3, (union sigval){ .sival_int = value }));
	MUST(sigprocmask(SIG_UNBLOCK, &set, NULL));
	return 0;
}
