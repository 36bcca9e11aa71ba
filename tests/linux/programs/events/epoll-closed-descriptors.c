// calls: close epoll_wait dup
// flags: none
// what: closing a descriptor takes it out of a set, unless a duplicate keeps it open
#include "../check.h"
#include <sys/epoll.h>

int main(void)
{
	int one[2], two[2];
	MUST(pipe(one)), MUST(pipe(two));
	int set = MUST(epoll_create1(0));
	struct epoll_event event = { .events = EPOLLIN };
	MUST(epoll_ctl(set, EPOLL_CTL_ADD, one[0], &event));
	MUST(epoll_ctl(set, EPOLL_CTL_ADD, two[0], &event));
	MUST(write(one[1], "x", 1)), MUST(write(two[1], "x", 1));
	struct epoll_event events[4];
	VALUE(epoll_wait(set, events, 4, 0));
	close(one[0]);
	VALUE(epoll_wait(set, events, 4, 0));
	int copy = MUST(dup(two[0]));
	close(two[0]);
	VALUE(epoll_wait(set, events, 4, 0));
	VALUE(epoll_ctl(set, EPOLL_CTL_DEL, two[0], NULL));
	close(copy);
	VALUE(epoll_wait(set, events, 4, 0));
	return 0;
}
