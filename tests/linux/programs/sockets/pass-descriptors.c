// calls: sendmsg recvmsg
// flags: SCM_RIGHTS MSG_CMSG_CLOEXEC
// what: descriptors pass through a unix socket and open the same files, closed on exec if asked for
#include "../network.h"

int main(void)
{
	int ends[2], channel[2], passed[2] = { -1, -1 };
	char byte = 'x', text[8] = "";
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(2 * sizeof(int))];
	} control = { 0 };
	struct iovec data = { &byte, 1 };
	struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = &control,
			.msg_controllen = sizeof control };
	MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
	MUST(pipe(channel));
	control.header = (struct cmsghdr){ .cmsg_len = CMSG_LEN(sizeof channel), .cmsg_level = SOL_SOCKET,
			.cmsg_type = SCM_RIGHTS };
	memcpy(CMSG_DATA(&control.header), channel, sizeof channel);
	VALUE(sendmsg(ends[0], &message, 0));
	memset(&control, 0, sizeof control);
	VALUE(recvmsg(ends[1], &message, MSG_CMSG_CLOEXEC));
	HOLDS(control.header.cmsg_type == SCM_RIGHTS && control.header.cmsg_len == CMSG_LEN(sizeof channel));
	memcpy(passed, CMSG_DATA(&control.header), sizeof passed);
	HOLDS(passed[0] > 2 && passed[0] != channel[0] && fcntl(passed[0], F_GETFD) == FD_CLOEXEC);
	close(channel[1]);
	MUST(write(passed[1], "via", 3));
	VALUE(read(channel[0], text, 8));
	puts(text);
	close(passed[1]);
	VALUE(read(channel[0], text, 8));
	control.header.cmsg_len = CMSG_LEN(sizeof(int)), message.msg_controllen = CMSG_LEN(sizeof(int));
	*(int *)CMSG_DATA(&control.header) = 1000;
	VALUE(sendmsg(ends[0], &message, 0));
	return 0;
}
