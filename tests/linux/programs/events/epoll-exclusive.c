// calls: epoll_ctl epoll_wait
// flags: EPOLLEXCLUSIVE
// what: EPOLLEXCLUSIVE is for adding only, with a few flags, not for sets; events arrive as usual
#include "../check.h"
#include <sys/epoll.h>

int main(void)
{
	int channel[2];
	MUST(pipe(channel));
	int set = MUST(epoll_create1(0)), other = MUST(epoll_create1(0));
	struct epoll_event event = { .events = EPOLLIN | EPOLLEXCLUSIVE };
	VALUE(epoll_ctl(set, EPOLL_CTL_ADD, channel[0], &event));
	VALUE(epoll_ctl(set, EPOLL_CTL_MOD, channel[0], &event));
	VALUE(epoll_ctl(set, EPOLL_CTL_ADD, other, &event));
	event.events = EPOLLIN | EPOLLEXCLUSIVE | EPOLLONESHOT;
	VALUE(epoll_ctl(other, EPOLL_CTL_ADD, channel[0], &event));
	MUST(write(channel[1], "x", 1));
	VALUE(epoll_wait(set, &event, 1, 1000));
	HOLDS(event.events == EPOLLIN);
	return 0;
}
