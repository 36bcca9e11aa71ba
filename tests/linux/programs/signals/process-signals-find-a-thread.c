// calls: kill rt_sigprocmask rt_sigaction
// flags: none
// what: a signal to the process goes to a thread that does not block it, also when the thread blocks it later or ends
#include "../check.h"

static pid_t handled_in;
static pthread_barrier_t barrier;
static int handled;

static void handle(int number)
{
	(void)number;
	handled_in = syscall(SYS_gettid);
	__atomic_add_fetch(&handled, 1, __ATOMIC_SEQ_CST);
}

static void wait_for_handler(int count)
{
	for (int round = 0; round < 1000 && __atomic_load_n(&handled, __ATOMIC_SEQ_CST) < count; round++)
		sleep_ms(1);
}

static void *take_it(void *argument)
{
	sigset_t set;
	sigemptyset(&set), sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	*(pid_t *)argument = syscall(SYS_gettid);
	pthread_barrier_wait(&barrier);
	pthread_barrier_wait(&barrier);
	return argument;
}

int main(void)
{
	struct sigaction action = { .sa_handler = handle, .sa_flags = SA_RESTART };
	pthread_t thread;
	pid_t worker;
	sigset_t set;
	pthread_barrier_init(&barrier, NULL, 2);
	MUST(sigaction(SIGUSR1, &action, NULL));
	sigemptyset(&set), sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	pthread_create(&thread, NULL, take_it, &worker);
	pthread_barrier_wait(&barrier);
	MUST(kill(getpid(), SIGUSR1));
	wait_for_handler(1);
	HOLDS(handled == 1 && handled_in == worker);
	pthread_barrier_wait(&barrier);
	pthread_join(thread, NULL);
	MUST(kill(getpid(), SIGUSR1));
	sleep_ms(2);
	HOLDS(handled == 1);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	HOLDS(handled == 2 && handled_in == getpid());
	MUST(kill(getpid(), SIGUSR1));
	HOLDS(handled == 3);
	return 0;
}
