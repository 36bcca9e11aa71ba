// calls: socket bind connect accept getsockname
// flags: AF_INET6
// what: a connection over the loopback of IPv6, with addresses of both sides
#include "../network.h"

int main(void)
{
	struct sockaddr_in6 address = loopback6(0), peer;
	socklen_t length = sizeof peer;
	char text[INET6_ADDRSTRLEN];
	int listener = MUST(socket(AF_INET6, SOCK_STREAM, 0)), client = MUST(socket(AF_INET6, SOCK_STREAM, 0));
	VALUE(bind(listener, (struct sockaddr *)&address, sizeof address));
	VALUE(listen(listener, 4));
	address.sin6_port = htons(port_of(listener));
	VALUE(connect(client, (struct sockaddr *)&address, sizeof address));
	int server = accept(listener, (struct sockaddr *)&peer, &length);
	HOLDS(server != -1 && length == sizeof peer && peer.sin6_family == AF_INET6);
	puts(inet_ntop(AF_INET6, &peer.sin6_addr, text, sizeof text));
	HOLDS(ntohs(peer.sin6_port) == port_of(client));
	MUST(write(client, "six", 3));
	VALUE(read(server, text, sizeof text));
	return 0;
}
