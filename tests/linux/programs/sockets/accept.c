// calls: accept accept4
// flags: SOCK_NONBLOCK SOCK_CLOEXEC
// what: nobody there is EAGAIN without blocking; flags are not inherited but given; other sockets are EINVAL
#include "../network.h"

int main(void)
{
	int listener = tcp_listener(), ends[2];
	MUST(fcntl(listener, F_SETFL, O_NONBLOCK));
	VALUE(accept(listener, NULL, NULL));
	tcp_connect(port_of(listener)), tcp_connect(port_of(listener));
	wait_for(listener, POLLIN);
	int plain = MUST(accept(listener, NULL, NULL));
	HOLDS(!(fcntl(plain, F_GETFL) & O_NONBLOCK) && fcntl(plain, F_GETFD) == 0);
	wait_for(listener, POLLIN);
	int flagged = MUST(accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC));
	HOLDS((fcntl(flagged, F_GETFL) & O_NONBLOCK) && fcntl(flagged, F_GETFD) == FD_CLOEXEC);
	VALUE(syscall(SYS_accept4, listener, NULL, NULL, 0x100)); /* the C library would try without flags */
	VALUE(accept(plain, NULL, NULL));
	VALUE(accept(0, NULL, NULL));
	VALUE(accept(1000, NULL, NULL));
	VALUE(accept(MUST(socket(AF_INET, SOCK_DGRAM, 0)), NULL, NULL));
	MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
	VALUE(accept(ends[0], NULL, NULL));
	return 0;
}
