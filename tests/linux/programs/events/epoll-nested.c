// calls: epoll_ctl epoll_wait poll
// flags: none
// what: a set can be watched by another set and by poll; a circle is ELOOP
#include "../check.h"
#include <sys/epoll.h>

int main(void)
{
	int channel[2];
	MUST(pipe(channel));
	int inner = MUST(epoll_create1(0)), outer = MUST(epoll_create1(0));
	struct epoll_event event = { .events = EPOLLIN };
	struct pollfd entry = { outer, POLLIN, 0 };
	MUST(epoll_ctl(inner, EPOLL_CTL_ADD, channel[0], &event));
	VALUE(epoll_ctl(outer, EPOLL_CTL_ADD, inner, &event));
	VALUE(epoll_ctl(inner, EPOLL_CTL_ADD, outer, &event));
	VALUE(epoll_wait(outer, &event, 1, 0));
	VALUE(poll(&entry, 1, 0));
	MUST(write(channel[1], "x", 1));
	VALUE(poll(&entry, 1, 1000));
	VALUE(epoll_wait(outer, &event, 1, 1000));
	VALUE(epoll_wait(inner, &event, 1, 1000));
	return 0;
}
