// calls: rt_sigprocmask kill clone
// flags: none
// what: a thread inherits the mask of its maker; a signal to the process goes to a thread that does not block it
#include "../check.h"

static pid_t handled_in, worker;

static void handle(int number)
{
	(void)number;
	handled_in = syscall(SYS_gettid);
}

static void *work(void *argument)
{
	sigset_t mask, set;
	worker = syscall(SYS_gettid);
	pthread_sigmask(SIG_SETMASK, NULL, &mask);
	HOLDS(sigismember(&mask, SIGUSR1));
	sigemptyset(&set), sigaddset(&set, SIGUSR1);
	kill(getpid(), SIGUSR1); /* blocked everywhere, so it stays with the process */
	HOLDS(handled_in == 0);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	HOLDS(handled_in == worker);
	return argument;
}

int main(void)
{
	struct sigaction action = { .sa_handler = handle };
	pthread_t thread;
	sigset_t set;
	MUST(sigaction(SIGUSR1, &action, NULL));
	sigemptyset(&set), sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	pthread_create(&thread, NULL, work, NULL);
	pthread_join(thread, NULL);
	return 0;
}
