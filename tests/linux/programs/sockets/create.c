// calls: socket
// flags: SOCK_STREAM SOCK_DGRAM SOCK_NONBLOCK SOCK_CLOEXEC
// what: kinds of sockets that exist are made with their flags; others have their errors
#include "../network.h"

int main(void)
{
	OUTCOME(socket(AF_INET, SOCK_STREAM, 0));
	OUTCOME(socket(AF_INET, SOCK_DGRAM, IPPROTO_UDP));
	OUTCOME(socket(AF_INET6, SOCK_STREAM, IPPROTO_TCP));
	OUTCOME(socket(AF_UNIX, SOCK_SEQPACKET, 0));
	int made = MUST(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
	HOLDS(fcntl(made, F_GETFL) & O_NONBLOCK);
	HOLDS(fcntl(made, F_GETFD) & FD_CLOEXEC);
	VALUE(socket(AF_INET, SOCK_STREAM, IPPROTO_UDP));
	VALUE(socket(AF_INET, SOCK_SEQPACKET, 0));
	VALUE(socket(AF_INET, 77, 0));
	VALUE(socket(99, SOCK_STREAM, 0));
	struct stat found;
	MUST(fstat(made, &found));
	HOLDS(S_ISSOCK(found.st_mode));
	return 0;
}
