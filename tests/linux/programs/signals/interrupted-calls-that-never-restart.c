// calls: poll epoll_wait select nanosleep pause tgkill
// flags: SA_RESTART
// what: poll, select, epoll_wait, pause and sleeping are EINTR after a handler even with SA_RESTART
#include "../check.h"
#include <sys/epoll.h>
#include <sys/select.h>

static pthread_t main_thread;
static int stop;

static void handle(int number)
{
	(void)number;
}

static void *interrupt_again_and_again(void *argument)
{
	while (!__atomic_load_n(&stop, __ATOMIC_SEQ_CST)) {
		sleep_ms(5);
		pthread_kill(main_thread, SIGUSR1);
	}
	return argument;
}

int main(void)
{
	struct sigaction action = { .sa_handler = handle, .sa_flags = SA_RESTART };
	struct timespec time = { 5, 0 };
	struct epoll_event event;
	pthread_t thread;
	sigset_t only, none;
	int set = MUST(epoll_create1(0));
	main_thread = pthread_self();
	MUST(sigaction(SIGUSR1, &action, NULL));
	sigemptyset(&none), sigemptyset(&only), sigaddset(&only, SIGUSR2);
	pthread_create(&thread, NULL, interrupt_again_and_again, NULL);
	VALUE(poll(NULL, 0, 5000));
	VALUE(ppoll(NULL, 0, &time, &none));
	VALUE(select(0, NULL, NULL, NULL, &(struct timeval){ 5, 0 }));
	VALUE(epoll_wait(set, &event, 1, 5000));
	VALUE(nanosleep(&time, NULL));
	VALUE(pause());
	VALUE(sigsuspend(&none));
	VALUE(syscall(SYS_rt_sigtimedwait, &only, NULL, &time, 8)); /* the C library would begin again */
	__atomic_store_n(&stop, 1, __ATOMIC_SEQ_CST);
	pthread_join(thread, NULL);
	return 0;
}
