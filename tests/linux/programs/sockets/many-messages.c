// calls: sendmmsg recvmmsg
// flags: MSG_DONTWAIT
// what: several datagrams are sent and received in one call
#include "../network.h"

int main(void)
{
	int receiver = bound_socket(SOCK_DGRAM), sender = MUST(socket(AF_INET, SOCK_DGRAM, 0));
	struct sockaddr_in address = loopback(port_of(receiver));
	char texts[4][8] = { "" };
	struct iovec out[3] = { { "one", 3 }, { "two", 3 }, { "three", 5 } }, in[4];
	struct mmsghdr sent[3] = { 0 }, received[4] = { 0 };
	for (int index = 0; index < 3; index++)
		sent[index].msg_hdr = (struct msghdr){ .msg_name = &address, .msg_namelen = sizeof address,
				.msg_iov = &out[index], .msg_iovlen = 1 };
	for (int index = 0; index < 4; index++) {
		in[index] = (struct iovec){ texts[index], 7 };
		received[index].msg_hdr = (struct msghdr){ .msg_iov = &in[index], .msg_iovlen = 1 };
	}
	VALUE(sendmmsg(sender, sent, 3, 0));
	VALUE(sent[2].msg_len);
	VALUE(recvmmsg(receiver, received, 4, MSG_DONTWAIT, NULL));
	for (int index = 0; index < 3; index++)
		printf("%u %s\n", received[index].msg_len, texts[index]);
	VALUE(recvmmsg(receiver, received, 4, MSG_DONTWAIT, NULL));
	return 0;
}
