// calls: epoll_ctl epoll_wait
// flags: EPOLLONESHOT EPOLL_CTL_MOD
// what: with EPOLLONESHOT a descriptor is reported once, until it is armed again
#include "../check.h"
#include <sys/epoll.h>

int main(void)
{
	int channel[2];
	MUST(pipe(channel));
	int set = MUST(epoll_create1(0));
	struct epoll_event event = { .events = EPOLLIN | EPOLLONESHOT };
	MUST(epoll_ctl(set, EPOLL_CTL_ADD, channel[0], &event));
	MUST(write(channel[1], "x", 1));
	VALUE(epoll_wait(set, &event, 1, 0));
	MUST(write(channel[1], "y", 1));
	VALUE(epoll_wait(set, &event, 1, 0));
	event.events = EPOLLIN | EPOLLONESHOT;
	VALUE(epoll_ctl(set, EPOLL_CTL_MOD, channel[0], &event));
	VALUE(epoll_wait(set, &event, 1, 0));
	VALUE(epoll_wait(set, &event, 1, 0));
	return 0;
}
