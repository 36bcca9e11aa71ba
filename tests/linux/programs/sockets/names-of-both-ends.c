// calls: getsockname getpeername accept
// flags: none
// what: addresses of both ends agree; short buffers are cut and tell the full length
#include "../network.h"

int main(void)
{
	struct sockaddr_in own, peer, from;
	socklen_t length = sizeof own;
	int listener = tcp_listener(), client = tcp_connect(port_of(listener));
	int server = MUST(accept(listener, (struct sockaddr *)&from, &length));
	VALUE(length);
	VALUE(getsockname(client, (struct sockaddr *)&own, &length));
	VALUE(getpeername(client, (struct sockaddr *)&peer, &length));
	HOLDS(own.sin_port == from.sin_port && own.sin_addr.s_addr == from.sin_addr.s_addr);
	HOLDS(ntohs(peer.sin_port) == port_of(listener) && peer.sin_addr.s_addr == htonl(INADDR_LOOPBACK));
	HOLDS(port_of(server) == port_of(listener));
	length = 4;
	memset(&own, 0x77, sizeof own);
	VALUE(getsockname(client, (struct sockaddr *)&own, &length));
	HOLDS(length == sizeof own && own.sin_family == AF_INET && own.sin_addr.s_addr == 0x77777777);
	length = sizeof own;
	VALUE(getpeername(listener, (struct sockaddr *)&own, &length));
	VALUE(getsockname(0, (struct sockaddr *)&own, &length));
	VALUE(getsockname(1000, (struct sockaddr *)&own, &length));
	VALUE(getsockname(client, (void *)8, &length));
	return 0;
}
