// calls: sendto recvfrom read write
// flags: ENOTCONN
// what: a socket without a peer can neither send nor receive
#include "../network.h"

int main(void)
{
	int ends[2];
	char byte;
	signal(SIGPIPE, SIG_IGN);
	int stream = MUST(socket(AF_INET, SOCK_STREAM, 0)), local = MUST(socket(AF_UNIX, SOCK_STREAM, 0));
	VALUE(recv(stream, &byte, 1, 0));
	VALUE(send(stream, "x", 1, 0));
	VALUE(recv(local, &byte, 1, 0));
	VALUE(send(local, "x", 1, 0));
	VALUE(recv(tcp_listener(), &byte, 1, 0));
	MUST(pipe(ends));
	VALUE(send(ends[1], "x", 1, 0));
	VALUE(recv(ends[0], &byte, 1, 0));
	struct pollfd entry = { stream, POLLIN | POLLOUT, 0 };
	VALUE(poll(&entry, 1, 0));
	HOLDS(entry.revents == (POLLOUT | POLLHUP));
	return 0;
}
