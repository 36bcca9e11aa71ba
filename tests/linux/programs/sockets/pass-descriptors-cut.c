// calls: recvmsg
// flags: SCM_RIGHTS MSG_CTRUNC
// what: a receiver with no room for a descriptor is told so, and it is closed
#include "../network.h"

int main(void)
{
	int ends[2], channel[2];
	char byte = 'x';
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct iovec data = { &byte, 1 };
	struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = &control,
			.msg_controllen = sizeof control };
	MUST(socketpair(AF_UNIX, SOCK_DGRAM, 0, ends));
	MUST(pipe(channel));
	control.header = (struct cmsghdr){ .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET,
			.cmsg_type = SCM_RIGHTS };
	*(int *)CMSG_DATA(&control.header) = channel[1];
	MUST(sendmsg(ends[0], &message, 0));
	close(channel[1]);
	message.msg_control = NULL, message.msg_controllen = 0;
	VALUE(recvmsg(ends[1], &message, 0));
	HOLDS(message.msg_flags & MSG_CTRUNC);
	VALUE(read(channel[0], &byte, 1));
	return 0;
}
