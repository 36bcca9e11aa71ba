// calls: epoll_ctl epoll_wait
// flags: EPOLL_CTL_MOD EPOLL_CTL_DEL
// what: a changed entry has its new events and data, a deleted one is silent
#include "../check.h"
#include <sys/epoll.h>

int main(void)
{
	int channel[2];
	MUST(pipe(channel));
	int set = MUST(epoll_create1(0));
	struct epoll_event event = { .events = 0, .data.u32 = 1 };
	MUST(epoll_ctl(set, EPOLL_CTL_ADD, channel[1], &event));
	VALUE(epoll_wait(set, &event, 1, 0));
	event.events = EPOLLOUT, event.data.u32 = 2;
	VALUE(epoll_ctl(set, EPOLL_CTL_MOD, channel[1], &event));
	VALUE(epoll_wait(set, &event, 1, 0));
	VALUE(event.data.u32);
	event.events = 0;
	VALUE(epoll_ctl(set, EPOLL_CTL_MOD, channel[1], &event));
	close(channel[0]);
	VALUE(epoll_wait(set, &event, 1, 0));
	HOLDS(event.events == EPOLLERR);
	VALUE(epoll_ctl(set, EPOLL_CTL_DEL, channel[1], NULL));
	VALUE(epoll_wait(set, &event, 1, 0));
	VALUE(epoll_ctl(set, EPOLL_CTL_DEL, channel[1], NULL));
	return 0;
}
