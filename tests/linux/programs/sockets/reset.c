// calls: setsockopt close read
// flags: SO_LINGER
// what: closing with a linger time of 0, or with unread data, resets the connection
#include "../network.h"

int main(void)
{
	int ends[2];
	char byte;
	struct linger none = { 1, 0 };
	signal(SIGPIPE, SIG_IGN);
	tcp_pair(ends);
	MUST(setsockopt(ends[0], SOL_SOCKET, SO_LINGER, &none, sizeof none));
	close(ends[0]);
	wait_for(ends[1], POLLIN);
	VALUE(read(ends[1], &byte, 1));
	VALUE(read(ends[1], &byte, 1));
	VALUE(write(ends[1], "x", 1));
	tcp_pair(ends);
	MUST(write(ends[1], "unread", 6));
	wait_for(ends[0], POLLIN);
	close(ends[0]);
	wait_for(ends[1], POLLIN);
	VALUE(read(ends[1], &byte, 1));
	return 0;
}
