// calls: setsockopt recvfrom accept sendto
// flags: SO_RCVTIMEO SO_SNDTIMEO
// what: with a time limit, receiving, accepting and sending into a full buffer end with EAGAIN
#include "../network.h"

int main(void)
{
	static char block[1 << 20];
	int ends[2], listener = tcp_listener();
	struct timeval limit = { 0, 20000 }, found;
	socklen_t length = sizeof found;
	char byte;
	tcp_pair(ends);
	VALUE(setsockopt(ends[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit));
	MUST(setsockopt(ends[0], SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit));
	MUST(setsockopt(listener, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit));
	VALUE(getsockopt(ends[0], SOL_SOCKET, SO_RCVTIMEO, &found, &length));
	HOLDS(found.tv_sec == 0 && found.tv_usec == 20000);
	long start = now_ms();
	VALUE(recv(ends[0], &byte, 1, 0));
	HOLDS(now_ms() - start >= 19);
	VALUE(accept(listener, NULL, NULL));
	while (send(ends[0], block, sizeof block, 0) > 0)
		;
	puts(error_name(errno));
	limit.tv_usec = 1000000;
	VALUE(setsockopt(ends[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit));
	return 0;
}
