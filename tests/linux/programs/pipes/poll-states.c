// calls: poll
// flags: POLLIN POLLOUT POLLHUP POLLERR
// what: an empty, filled, full, half-closed and closed pipe each have their events
#include "../check.h"

static void show_events(const char *what, int descriptor)
{
	struct pollfd entry = { .fd = descriptor, .events = POLLIN | POLLOUT | POLLRDHUP };
	poll(&entry, 1, 0);
	printf("%s:%s%s%s%s%s\n", what, entry.revents & POLLIN ? " in" : "", entry.revents & POLLOUT ? " out" : "",
		   entry.revents & POLLHUP ? " hang-up" : "", entry.revents & POLLERR ? " error" : "",
		   entry.revents & POLLNVAL ? " invalid" : "");
}

int main(void)
{
	static char block[PAGE];
	int channel[2], other[2];
	MUST(pipe2(channel, O_NONBLOCK));
	show_events("reader of an empty pipe", channel[0]);
	show_events("writer of an empty pipe", channel[1]);
	while (write(channel[1], block, PAGE) > 0)
		;
	show_events("reader of a full pipe", channel[0]);
	show_events("writer of a full pipe", channel[1]);
	MUST(pipe(other));
	close(channel[1]), close(other[0]);
	show_events("reader, data left, no writer", channel[0]);
	while (read(channel[0], block, PAGE) > 0)
		;
	show_events("reader, no data, no writer", channel[0]);
	show_events("writer without a reader", other[1]);
	close(other[1]);
	show_events("closed", other[1]);
	return 0;
}
