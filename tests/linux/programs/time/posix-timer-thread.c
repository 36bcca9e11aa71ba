// calls: timer_create clone tgkill
// flags: SIGEV_THREAD SIGEV_THREAD_ID
// what: a timer can run a function in a thread, and signal one thread
#include "../check.h"
#include <semaphore.h>

static sem_t done;
static int value;

static void notify(union sigval with)
{
	value = with.sival_int;
	sem_post(&done);
}

int main(void)
{
	struct sigevent in_thread = { .sigev_notify = SIGEV_THREAD, .sigev_notify_function = notify,
			.sigev_value.sival_int = 9 };
	struct itimerspec once = { .it_value = { 0, 5000000 } };
	timer_t timer;
	sem_init(&done, 0, 0);
	VALUE(timer_create(CLOCK_MONOTONIC, &in_thread, &timer));
	VALUE(timer_settime(timer, 0, &once, NULL));
	while (sem_wait(&done) == -1)
		;
	VALUE(value);
	/* The same as the kernel has it: how, signal, value, then the thread. */
	struct {
		union sigval value;
		int signal, notify, thread;
		char rest[44];
	} to_thread = { .signal = SIGUSR1, .notify = 4, .thread = (int)syscall(SYS_gettid) };
	int kernel_timer;
	sigset_t set;
	sigemptyset(&set), sigaddset(&set, SIGUSR1);
	MUST(sigprocmask(SIG_BLOCK, &set, NULL));
	VALUE(syscall(SYS_timer_create, CLOCK_MONOTONIC, &to_thread, &kernel_timer));
	VALUE(syscall(SYS_timer_settime, kernel_timer, 0, &once, NULL));
	HOLDS(sigwaitinfo(&set, NULL) == SIGUSR1);
	return 0;
}
