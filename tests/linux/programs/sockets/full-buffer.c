// calls: sendto poll
// flags: MSG_DONTWAIT
// what: a sender that nobody reads from gets EAGAIN, is not writable, and is so again after a read
#include "../network.h"

int main(void)
{
	static char block[1 << 16];
	int ends[2];
	struct pollfd entry = { 0, POLLOUT, 0 };
	tcp_pair(ends);
	entry.fd = ends[0];
	while (send(ends[0], block, sizeof block, MSG_DONTWAIT) > 0 || poll(&entry, 1, 50) == 1)
		;
	puts(error_name(errno));
	VALUE(poll(&entry, 1, 0));
	while (recv(ends[1], block, sizeof block, MSG_DONTWAIT) > 0)
		;
	VALUE(poll(&entry, 1, 1000));
	HOLDS(send(ends[0], block, 1, MSG_DONTWAIT) == 1);
	return 0;
}
