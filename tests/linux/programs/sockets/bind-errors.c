// calls: bind
// flags: EADDRINUSE EADDRNOTAVAIL
// what: a port in use, an address of another machine, a second bind and short addresses are errors
#include "../network.h"

int main(void)
{
	int listener = tcp_listener();
	struct sockaddr_in taken = loopback(port_of(listener)), free_port = loopback(0), foreign = free_port;
	foreign.sin_addr.s_addr = htonl(0xc0000201); /* 192.0.2.1, which no machine has */
	int other = MUST(socket(AF_INET, SOCK_STREAM, 0));
	VALUE(bind(other, (struct sockaddr *)&taken, sizeof taken));
	VALUE(bind(other, (struct sockaddr *)&foreign, sizeof foreign));
	VALUE(bind(other, (struct sockaddr *)&free_port, 8));
	VALUE(bind(other, (struct sockaddr *)&free_port, sizeof free_port));
	VALUE(bind(other, (struct sockaddr *)&free_port, sizeof free_port));
	VALUE(bind(0, (struct sockaddr *)&free_port, sizeof free_port));
	VALUE(bind(1000, (struct sockaddr *)&free_port, sizeof free_port));
	HOLDS(port_of(other) != 0 && port_of(other) != port_of(listener));
	return 0;
}
