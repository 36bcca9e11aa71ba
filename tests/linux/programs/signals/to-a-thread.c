// calls: tgkill tkill
// flags: none
// what: a signal sent to a thread runs there; unknown threads are ESRCH, nonsense EINVAL
#include "../check.h"

static pid_t handled_in, worker;
static pthread_barrier_t barrier;

static void handle(int number)
{
	(void)number;
	handled_in = syscall(SYS_gettid);
}

static void *work(void *argument)
{
	worker = syscall(SYS_gettid);
	pthread_barrier_wait(&barrier);
	pthread_barrier_wait(&barrier);
	return argument;
}

int main(void)
{
	struct sigaction action = { .sa_handler = handle, .sa_flags = SA_RESTART };
	pthread_t thread;
	MUST(sigaction(SIGUSR1, &action, NULL));
	pthread_barrier_init(&barrier, NULL, 2);
	pthread_create(&thread, NULL, work, NULL);
	pthread_barrier_wait(&barrier);
	VALUE(syscall(SYS_tgkill, getpid(), worker, SIGUSR1));
	for (int round = 0; round < 1000 && handled_in == 0; round++)
		sleep_ms(1);
	HOLDS(handled_in == worker);
	VALUE(syscall(SYS_tgkill, getpid(), worker, 0));
	VALUE(syscall(SYS_tgkill, getpid(), worker, 65));
	VALUE(syscall(SYS_tgkill, -1, worker, SIGUSR1));
	VALUE(syscall(SYS_tgkill, getpid(), 0x3ffffff, SIGUSR1));
	VALUE(syscall(SYS_tkill, getpid(), SIGUSR1));
	HOLDS(handled_in == getpid());
	pthread_barrier_wait(&barrier);
	pthread_join(thread, NULL);
	return 0;
}
