// calls: epoll_wait eventfd2
// flags: EPOLLET EPOLLONESHOT
// what: of two threads that wait in one set, each event with EPOLLONESHOT reaches exactly one
#include "../check.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>

enum { EVENTS = 200 };
static int set, counters[EVENTS], seen[EVENTS], total;

static void *take(void *argument)
{
	struct epoll_event event;
	while (__atomic_load_n(&total, __ATOMIC_SEQ_CST) < EVENTS)
		if (epoll_wait(set, &event, 1, 5) == 1) {
			__atomic_add_fetch(&seen[event.data.u32], 1, __ATOMIC_SEQ_CST);
			__atomic_add_fetch(&total, 1, __ATOMIC_SEQ_CST);
		}
	return argument;
}

int main(void)
{
	pthread_t threads[2];
	int wrong = 0;
	set = MUST(epoll_create1(0));
	for (int index = 0; index < 2; index++)
		pthread_create(&threads[index], NULL, take, NULL);
	for (int index = 0; index < EVENTS; index++) {
		struct epoll_event event = { .events = EPOLLIN | EPOLLET | EPOLLONESHOT, .data.u32 = (uint32_t)index };
		counters[index] = MUST(eventfd(0, EFD_NONBLOCK));
		MUST(epoll_ctl(set, EPOLL_CTL_ADD, counters[index], &event));
		MUST(eventfd_write(counters[index], 1));
	}
	for (int index = 0; index < 2; index++)
		pthread_join(threads[index], NULL);
	for (int index = 0; index < EVENTS; index++)
		wrong += seen[index] != 1;
	VALUE(wrong);
	return 0;
}
