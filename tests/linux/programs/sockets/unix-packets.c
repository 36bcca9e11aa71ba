// calls: socketpair sendmsg recvmsg
// flags: SOCK_SEQPACKET MSG_EOR MSG_TRUNC
// what: packets are received one by one, cut if they do not fit, with a connection as streams have it
#include "../network.h"

int main(void)
{
	struct sockaddr_un address;
	char text[16] = "", name[64];
	snprintf(name, sizeof name, "@spore-linux-packets-%d", getpid());
	socklen_t length = unix_address(&address, name);
	int listener = MUST(socket(AF_UNIX, SOCK_SEQPACKET, 0)), client = MUST(socket(AF_UNIX, SOCK_SEQPACKET, 0));
	MUST(bind(listener, (struct sockaddr *)&address, length));
	MUST(listen(listener, 4));
	VALUE(connect(client, (struct sockaddr *)&address, length));
	int server = MUST(accept(listener, NULL, NULL));
	MUST(send(client, "0123456789", 10, 0)), MUST(send(client, "next", 4, 0));
	VALUE(recv(server, text, 4, 0));
	struct iovec in = { text, 2 };
	struct msghdr message = { .msg_iov = &in, .msg_iovlen = 1 };
	VALUE(recvmsg(server, &message, 0));
	HOLDS(message.msg_flags & MSG_TRUNC);
	close(client);
	VALUE(recv(server, text, 4, 0));
	return 0;
}
