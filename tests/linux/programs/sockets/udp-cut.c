// calls: recvfrom recvmsg
// flags: MSG_TRUNC
// what: what does not fit of a datagram is lost; MSG_TRUNC tells its length; too large ones are EMSGSIZE
#include "../network.h"

int main(void)
{
	static char large[70000];
	int receiver = bound_socket(SOCK_DGRAM), sender = MUST(socket(AF_INET, SOCK_DGRAM, 0));
	struct sockaddr_in to = loopback(port_of(receiver));
	char text[8] = "";
	struct iovec in = { text, 4 };
	struct msghdr message = { .msg_iov = &in, .msg_iovlen = 1 };
	MUST(connect(sender, (struct sockaddr *)&to, sizeof to));
	for (int round = 0; round < 4; round++)
		MUST(send(sender, "0123456789", 10, 0));
	VALUE(recv(receiver, text, 4, 0));
	VALUE(recv(receiver, text, 4, MSG_TRUNC));
	VALUE(recv(receiver, text, 4, MSG_PEEK | MSG_TRUNC));
	VALUE(recvmsg(receiver, &message, 0));
	HOLDS(message.msg_flags & MSG_TRUNC);
	VALUE(recv(receiver, text, 0, 0));
	VALUE(recv(receiver, text, 4, MSG_DONTWAIT));
	VALUE(send(sender, large, 65507, 0));
	VALUE(send(sender, large, 65508, 0));
	VALUE(recv(receiver, large, sizeof large, 0));
	return 0;
}
