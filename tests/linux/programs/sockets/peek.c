// calls: recvfrom
// flags: MSG_PEEK MSG_DONTWAIT
// what: MSG_PEEK shows what the next read takes; MSG_DONTWAIT never waits
#include "../network.h"

int main(void)
{
	int ends[2];
	char text[16] = "";
	tcp_pair(ends);
	VALUE(recv(ends[1], text, 8, MSG_DONTWAIT));
	VALUE(recv(ends[1], text, 8, MSG_PEEK | MSG_DONTWAIT));
	MUST(write(ends[0], "content", 7));
	wait_for(ends[1], POLLIN);
	VALUE(recv(ends[1], text, 3, MSG_PEEK));
	VALUE(recv(ends[1], text, 16, MSG_PEEK));
	puts(text);
	VALUE(recv(ends[1], text, 16, 0));
	VALUE(recv(ends[1], text, 0, MSG_DONTWAIT));
	VALUE(recv(ends[1], text, 8, MSG_DONTWAIT));
	return 0;
}
