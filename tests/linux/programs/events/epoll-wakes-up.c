// calls: epoll_wait epoll_ctl write
// flags: none
// what: a wait ends when another thread writes, and when it adds a descriptor that is ready
#include "../check.h"
#include <sys/epoll.h>

static int set, one[2], two[2];

static void *make_ready(void *argument)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u32 = 2 };
	sleep_ms(15);
	if (argument)
		MUST(epoll_ctl(set, EPOLL_CTL_ADD, two[0], &event));
	else
		MUST(write(one[1], "x", 1));
	return NULL;
}

int main(void)
{
	pthread_t thread;
	char byte;
	struct epoll_event event = { .events = EPOLLIN, .data.u32 = 1 };
	MUST(pipe(one)), MUST(pipe(two));
	set = MUST(epoll_create1(0));
	MUST(epoll_ctl(set, EPOLL_CTL_ADD, one[0], &event));
	MUST(write(two[1], "x", 1));
	for (size_t round = 0; round < 2; round++) {
		pthread_create(&thread, NULL, make_ready, (void *)round);
		VALUE(epoll_wait(set, &event, 1, -1));
		VALUE(event.data.u32);
		pthread_join(thread, NULL);
		if (round == 0)
			MUST(read(one[0], &byte, 1));
	}
	return 0;
}
