// calls: epoll_create1 epoll_ctl epoll_wait
// flags: EPOLLIN EPOLL_CTL_ADD EPOLL_CLOEXEC
// what: without EPOLLET a descriptor is reported as long as it is ready, with the data it was added with
#include "../check.h"
#include <sys/epoll.h>

int main(void)
{
	int channel[2];
	char byte;
	MUST(pipe(channel));
	int set = MUST(epoll_create1(EPOLL_CLOEXEC));
	struct epoll_event event = { .events = EPOLLIN, .data.u64 = 0x123456789abcdef };
	VALUE(epoll_ctl(set, EPOLL_CTL_ADD, channel[0], &event));
	VALUE(epoll_wait(set, &event, 1, 0));
	MUST(write(channel[1], "x", 1));
	for (int round = 0; round < 3; round++) {
		memset(&event, 0, sizeof event);
		VALUE(epoll_wait(set, &event, 1, 1000));
		HOLDS(event.events == EPOLLIN && event.data.u64 == 0x123456789abcdef);
	}
	MUST(read(channel[0], &byte, 1));
	VALUE(epoll_wait(set, &event, 1, 0));
	close(channel[1]);
	VALUE(epoll_wait(set, &event, 1, 0));
	HOLDS(event.events == EPOLLHUP);
	return 0;
}
