// calls: eventfd2 read poll
// flags: EFD_SEMAPHORE
// what: a read of a semaphore takes one; poll shows what is possible
#include "../check.h"
#include <sys/eventfd.h>

static void show_events(int descriptor)
{
	struct pollfd entry = { descriptor, POLLIN | POLLOUT, 0 };
	poll(&entry, 1, 0);
	printf("ready:%s%s\n", entry.revents & POLLIN ? " in" : "", entry.revents & POLLOUT ? " out" : "");
}

int main(void)
{
	uint64_t value = 0;
	int counter = MUST(eventfd(2, EFD_NONBLOCK | EFD_SEMAPHORE));
	show_events(counter);
	for (int round = 0; round < 3; round++) {
		VALUE(read(counter, &value, 8));
		VALUE(value);
	}
	show_events(counter);
	MUST(eventfd_write(counter, UINT64_MAX - 1));
	show_events(counter);
	return 0;
}
