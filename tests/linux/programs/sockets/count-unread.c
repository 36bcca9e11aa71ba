// calls: ioctl
// flags: FIONREAD SIOCOUTQ
// what: FIONREAD counts the bytes of a stream and of the next datagram
#include "../network.h"
#include <sys/ioctl.h>

int main(void)
{
	int ends[2], count = -1;
	tcp_pair(ends);
	VALUE(ioctl(ends[1], FIONREAD, &count));
	VALUE(count);
	MUST(write(ends[0], "12345", 5));
	wait_for(ends[1], POLLIN);
	VALUE(ioctl(ends[1], FIONREAD, &count));
	VALUE(count);
	MUST(socketpair(AF_UNIX, SOCK_DGRAM, 0, ends));
	MUST(send(ends[0], "123", 3, 0)), MUST(send(ends[0], "1234567", 7, 0));
	VALUE(ioctl(ends[1], FIONREAD, &count));
	VALUE(count);
	VALUE(ioctl(tcp_listener(), FIONREAD, &count));
	return 0;
}
