// calls: setsockopt bind accept
// flags: IPV6_V6ONLY
// what: a socket of IPv6 on all addresses also takes IPv4, whose addresses it shows mapped, unless IPV6_V6ONLY
#include "../network.h"

static int listener6(int only)
{
	struct sockaddr_in6 any = { .sin6_family = AF_INET6 };
	int listener = MUST(socket(AF_INET6, SOCK_STREAM, 0));
	MUST(setsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof only));
	MUST(bind(listener, (struct sockaddr *)&any, sizeof any));
	MUST(listen(listener, 4));
	return listener;
}

int main(void)
{
	struct sockaddr_in6 peer;
	socklen_t length = sizeof peer;
	char text[INET6_ADDRSTRLEN];
	int both = listener6(0), only = listener6(1);
	struct sockaddr_in address = loopback(port_of(only));
	tcp_connect(port_of(both));
	MUST(accept(both, (struct sockaddr *)&peer, &length));
	puts(inet_ntop(AF_INET6, &peer.sin6_addr, text, sizeof text));
	VALUE(connect(MUST(socket(AF_INET, SOCK_STREAM, 0)), (struct sockaddr *)&address, sizeof address));
	return 0;
}
