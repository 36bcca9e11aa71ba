// calls: socketpair sendto recvfrom
// flags: SOCK_STREAM SOCK_DGRAM SOCK_SEQPACKET
// what: streams join what is sent, datagrams and packets keep it apart; a closed peer ends each in its way
#include "../network.h"

static void run(int type)
{
	int ends[2];
	char text[16] = "";
	MUST(socketpair(AF_UNIX, type, 0, ends));
	MUST(send(ends[0], "one", 3, 0)), MUST(send(ends[0], "two", 3, 0));
	VALUE(recv(ends[1], text, 16, 0));
	VALUE(recv(ends[1], text, 2, MSG_DONTWAIT));
	VALUE(recv(ends[1], text, 16, MSG_DONTWAIT));
	MUST(send(ends[1], "back", 4, 0));
	close(ends[0]);
	VALUE(recv(ends[1], text, 16, MSG_DONTWAIT));
	VALUE(send(ends[1], "x", 1, MSG_NOSIGNAL));
}

int main(void)
{
	int ends[2];
	run(SOCK_STREAM);
	run(SOCK_DGRAM);
	run(SOCK_SEQPACKET);
	VALUE(socketpair(AF_INET, SOCK_STREAM, 0, ends));
	VALUE(socketpair(AF_UNIX, 77, 0, ends));
	VALUE(syscall(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, 8));
	return 0;
}
