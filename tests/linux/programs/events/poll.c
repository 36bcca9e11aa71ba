// calls: poll
// flags: POLLIN POLLOUT POLLNVAL
// what: poll counts ready descriptors, skips negative ones, reports closed ones, and waits for its time
#include "../check.h"

int main(void)
{
	int channel[2];
	MUST(pipe(channel));
	struct pollfd entries[4] = { { channel[0], POLLIN, 9 }, { channel[1], POLLOUT, 9 }, { -1, POLLIN, 9 },
			{ 1000, POLLIN, 9 } };
	VALUE(poll(entries, 4, 1000));
	HOLDS(entries[0].revents == 0 && entries[1].revents == POLLOUT);
	HOLDS(entries[2].revents == 0 && entries[3].revents == POLLNVAL);
	MUST(write(channel[1], "x", 1));
	VALUE(poll(entries, 1, -1));
	HOLDS(entries[0].revents == POLLIN);
	entries[0].events = 0;
	VALUE(poll(entries, 1, 0));
	long start = now_ms();
	VALUE(poll(NULL, 0, 20));
	HOLDS(now_ms() - start >= 19);
	VALUE(poll((void *)8, 1, 0));
	return 0;
}
