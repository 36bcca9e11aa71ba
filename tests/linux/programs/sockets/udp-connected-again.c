// calls: connect getsockname getpeername
// flags: AF_UNSPEC
// what: a datagram socket that is connected again, to IPv4 after IPv6: its own address is chosen anew unless bound
#include "../network.h"

static void show(int socket)
{
	struct sockaddr_in6 address;
	socklen_t length = sizeof address;
	char text[INET6_ADDRSTRLEN];
	MUST(getsockname(socket, (struct sockaddr *)&address, &length));
	printf("from %s, ", inet_ntop(AF_INET6, &address.sin6_addr, text, sizeof text));
	puts(address.sin6_port ? "some port" : "no port");
	length = sizeof address;
	if (getpeername(socket, (struct sockaddr *)&address, &length) == 0)
		printf("to %s\n", inet_ntop(AF_INET6, &address.sin6_addr, text, sizeof text));
}

int main(void)
{
	struct sockaddr_in6 six = { .sin6_family = AF_INET6, .sin6_port = htons(9), .sin6_addr = in6addr_loopback },
			    bound = { .sin6_family = AF_INET6, .sin6_addr = in6addr_loopback };
	struct sockaddr_in four = loopback(9);
	struct sockaddr nobody = { .sa_family = AF_UNSPEC };
	int socket_of_both = MUST(socket(AF_INET6, SOCK_DGRAM, 0));
	show(socket_of_both);
	VALUE(connect(socket_of_both, (struct sockaddr *)&six, sizeof six));
	show(socket_of_both);
	VALUE(connect(socket_of_both, &nobody, sizeof nobody));
	show(socket_of_both);
	VALUE(connect(socket_of_both, (struct sockaddr *)&four, sizeof four));
	show(socket_of_both);
	int fixed = MUST(socket(AF_INET6, SOCK_DGRAM, 0));
	MUST(bind(fixed, (struct sockaddr *)&bound, sizeof bound));
	VALUE(connect(fixed, (struct sockaddr *)&six, sizeof six));
	VALUE(connect(fixed, &nobody, sizeof nobody));
	show(fixed);
	/* That port was the system's choice; this one is the program's. */
	int known = bound_socket(SOCK_DGRAM), port = port_of(known);
	close(known);
	int named = MUST(socket(AF_INET6, SOCK_DGRAM, 0));
	bound = (struct sockaddr_in6){ .sin6_family = AF_INET6, .sin6_port = htons(port) };
	VALUE(bind(named, (struct sockaddr *)&bound, sizeof bound));
	VALUE(connect(named, (struct sockaddr *)&six, sizeof six));
	show(named);
	VALUE(connect(named, &nobody, sizeof nobody));
	show(named);
	return 0;
}
