// calls: shutdown read write poll
// flags: SHUT_RD SHUT_WR SHUT_RDWR
// what: each direction ends on its own: the end of the stream there, EPIPE here
#include "../network.h"

int main(void)
{
	int ends[2];
	char text[8] = "";
	signal(SIGPIPE, SIG_IGN);
	tcp_pair(ends);
	MUST(write(ends[0], "last", 4));
	VALUE(shutdown(ends[0], SHUT_WR));
	VALUE(write(ends[0], "x", 1));
	VALUE(read(ends[1], text, 8));
	VALUE(read(ends[1], text, 8));
	VALUE(write(ends[1], "back", 4));
	VALUE(read(ends[0], text, 8));
	puts(text);
	VALUE(shutdown(ends[1], SHUT_WR));
	VALUE(read(ends[0], text, 8));
	struct pollfd entry = { ends[0], POLLIN | POLLRDHUP, 0 };
	VALUE(poll(&entry, 1, 1000));
	HOLDS(entry.revents == (POLLIN | POLLRDHUP | POLLHUP));
	VALUE(shutdown(ends[0], 9));
	VALUE(shutdown(MUST(socket(AF_INET, SOCK_STREAM, 0)), SHUT_WR));
	VALUE(shutdown(0, SHUT_WR));
	return 0;
}
