// calls: epoll_ctl epoll_wait
// flags: EPOLLET
// what: with EPOLLET each arrival of data is reported once
#include "../check.h"
#include <sys/epoll.h>

int main(void)
{
	int channel[2];
	char text[8];
	MUST(pipe2(channel, O_NONBLOCK));
	int set = MUST(epoll_create1(0));
	struct epoll_event event = { .events = EPOLLIN | EPOLLET };
	MUST(write(channel[1], "x", 1));
	VALUE(epoll_ctl(set, EPOLL_CTL_ADD, channel[0], &event));
	VALUE(epoll_wait(set, &event, 1, 0));
	VALUE(epoll_wait(set, &event, 1, 0));
	MUST(write(channel[1], "y", 1));
	VALUE(epoll_wait(set, &event, 1, 0));
	VALUE(epoll_wait(set, &event, 1, 0));
	VALUE(read(channel[0], text, 8));
	VALUE(epoll_wait(set, &event, 1, 0));
	MUST(write(channel[1], "z", 1));
	VALUE(epoll_wait(set, &event, 1, 0));
	return 0;
}
