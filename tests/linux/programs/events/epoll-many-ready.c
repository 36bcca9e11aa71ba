// calls: epoll_wait
// flags: none
// what: a wait that has room for fewer events than are ready gets to all of them in turn
#include "../check.h"
#include <sys/epoll.h>

int main(void)
{
	int channels[20][2], seen[20] = { 0 }, missing = 0;
	struct epoll_event events[4];
	int set = MUST(epoll_create1(0));
	for (int index = 0; index < 20; index++) {
		struct epoll_event event = { .events = EPOLLIN, .data.u32 = (uint32_t)index };
		MUST(pipe(channels[index]));
		MUST(epoll_ctl(set, EPOLL_CTL_ADD, channels[index][0], &event));
		MUST(write(channels[index][1], "x", 1));
	}
	for (int round = 0; round < 5; round++) {
		VALUE(epoll_wait(set, events, 4, 0));
		for (int index = 0; index < 4; index++)
			seen[events[index].data.u32]++;
	}
	for (int index = 0; index < 20; index++)
		missing += seen[index] == 0;
	VALUE(missing);
	return 0;
}
