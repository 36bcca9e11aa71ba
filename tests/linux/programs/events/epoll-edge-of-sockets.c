// calls: epoll_ctl epoll_wait sendto recvfrom
// flags: EPOLLET EPOLLIN EPOLLOUT EPOLLRDHUP
// what: a socket is reported writable at once, readable when data comes, and half-closed when the peer shuts down
#include "../network.h"
#include <sys/epoll.h>

static void show(int set)
{
	struct epoll_event event;
	int count = epoll_wait(set, &event, 1, 0);
	if (count == 1)
		printf("event:%s%s%s%s\n", event.events & EPOLLIN ? " in" : "", event.events & EPOLLOUT ? " out" : "",
			   event.events & EPOLLRDHUP ? " peer-shut" : "", event.events & EPOLLHUP ? " hang-up" : "");
	else
		puts("no event");
}

int main(void)
{
	int ends[2];
	char text[8];
	MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends));
	int set = MUST(epoll_create1(0));
	struct epoll_event event = { .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET };
	MUST(epoll_ctl(set, EPOLL_CTL_ADD, ends[0], &event));
	show(set);
	show(set);
	MUST(send(ends[1], "data", 4, 0));
	show(set);
	VALUE(recv(ends[0], text, 8, 0));
	MUST(shutdown(ends[1], SHUT_WR));
	show(set);
	close(ends[1]);
	show(set);
	return 0;
}
