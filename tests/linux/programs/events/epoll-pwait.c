// calls: epoll_pwait epoll_pwait2
// flags: none
// what: epoll_pwait lets a blocked signal in while it waits; epoll_pwait2 waits for nanoseconds
#include "../check.h"
#include <sys/epoll.h>

static volatile int handled;

static void handle(int number)
{
	(void)number;
	handled++;
}

int main(void)
{
	struct sigaction action = { .sa_handler = handle };
	struct epoll_event event;
	struct timespec some = { 0, 10000000 }, bad = { 0, 1000000000 };
	sigset_t set, empty;
	int watched = MUST(epoll_create1(0));
	MUST(sigaction(SIGUSR1, &action, NULL));
	sigemptyset(&empty), sigemptyset(&set), sigaddset(&set, SIGUSR1);
	MUST(sigprocmask(SIG_BLOCK, &set, NULL));
	raise(SIGUSR1);
	VALUE(epoll_pwait(watched, &event, 1, 0, &set));
	VALUE(epoll_pwait(watched, &event, 1, 5000, &empty));
	VALUE(handled);
	long start = now_ms();
	VALUE(syscall(441, watched, &event, 1, &some, NULL, 8)); /* epoll_pwait2 */
	HOLDS(now_ms() - start >= 9);
	VALUE(syscall(441, watched, &event, 1, &bad, NULL, 8));
	return 0;
}
