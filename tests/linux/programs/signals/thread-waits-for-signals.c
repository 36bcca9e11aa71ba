// calls: rt_sigtimedwait kill
// flags: none
// what: one thread can take all signals of the process by waiting for them, as servers do
#include "../check.h"

static void *take(void *argument)
{
	sigset_t *set = argument;
	int number = 0;
	while (number != SIGTERM && sigwait(set, &number) == 0)
		printf("took %s\n", signal_name(number));
	return NULL;
}

int main(void)
{
	pthread_t thread;
	sigset_t set, pending;
	int numbers[] = { SIGHUP, SIGUSR1, SIGTERM };
	sigemptyset(&set);
	for (int index = 0; index < 3; index++)
		sigaddset(&set, numbers[index]);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	pthread_create(&thread, NULL, take, &set);
	for (int index = 0; index < 3; index++) {
		kill(getpid(), numbers[index]);
		do /* until it was taken */
			sched_yield();
		while (sigpending(&pending) == 0 && sigismember(&pending, numbers[index]));
	}
	pthread_join(thread, NULL);
	return 0;
}
