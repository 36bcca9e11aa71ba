// calls: getsockopt setsockopt recvmsg
// flags: SO_PEERCRED SO_PASSCRED SCM_CREDENTIALS
// what: a unix socket tells the process and user of its peer
#include "../network.h"

int main(void)
{
	int ends[2], on = 1;
	struct ucred peer = { 0 };
	socklen_t length = sizeof peer;
	char byte;
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(struct ucred))];
	} control = { 0 };
	struct iovec data = { &byte, 1 };
	struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = &control,
			.msg_controllen = sizeof control };
	MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
	VALUE(getsockopt(ends[0], SOL_SOCKET, SO_PEERCRED, &peer, &length));
	HOLDS(peer.pid == getpid() && peer.uid == getuid() && peer.gid == getgid());
	VALUE(setsockopt(ends[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof on));
	MUST(send(ends[0], "x", 1, 0));
	VALUE(recvmsg(ends[1], &message, 0));
	HOLDS(control.header.cmsg_type == SCM_CREDENTIALS);
	memcpy(&peer, CMSG_DATA(&control.header), sizeof peer);
	HOLDS(peer.pid == getpid() && peer.uid == getuid());
	return 0;
}
