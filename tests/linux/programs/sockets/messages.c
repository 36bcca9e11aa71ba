// calls: sendmsg recvmsg
// flags: none
// what: several buffers are sent and received in one call; what is left of a message stays in a stream
#include "../network.h"

int main(void)
{
	int ends[2];
	char first[4] = "", second[4] = "", rest[8] = "";
	struct iovec out[3] = { { "ab", 2 }, { NULL, 0 }, { "cdefgh", 6 } }, in[2] = { { first, 3 }, { second, 3 } };
	struct msghdr message = { .msg_iov = out, .msg_iovlen = 3 };
	tcp_pair(ends);
	VALUE(sendmsg(ends[0], &message, 0));
	message = (struct msghdr){ .msg_iov = in, .msg_iovlen = 2 };
	wait_for(ends[1], POLLIN);
	VALUE(recvmsg(ends[1], &message, 0));
	printf("%s|%s\n", first, second);
	HOLDS(message.msg_flags == 0 && message.msg_controllen == 0);
	VALUE(recv(ends[1], rest, 8, 0));
	puts(rest);
	message.msg_iovlen = 1025;
	VALUE(syscall(SYS_sendmsg, ends[0], &message, 0));
	VALUE(syscall(SYS_recvmsg, ends[1], (void *)8, 0));
	return 0;
}
