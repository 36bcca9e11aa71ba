// calls: bind sendto recvfrom
// flags: SOCK_DGRAM
// what: datagrams arrive whole and in order, with the address of their sender, empty ones too
#include "../network.h"

int main(void)
{
	int one = bound_socket(SOCK_DGRAM), two = bound_socket(SOCK_DGRAM);
	struct sockaddr_in to = loopback(port_of(one)), from;
	socklen_t length = sizeof from;
	char text[16] = "";
	VALUE(sendto(two, "first", 5, 0, (struct sockaddr *)&to, sizeof to));
	VALUE(sendto(two, "", 0, 0, (struct sockaddr *)&to, sizeof to));
	VALUE(sendto(two, "third", 5, 0, (struct sockaddr *)&to, sizeof to));
	VALUE(recvfrom(one, text, 16, 0, (struct sockaddr *)&from, &length));
	puts(text);
	HOLDS(ntohs(from.sin_port) == port_of(two) && length == sizeof from);
	VALUE(recv(one, text, 16, 0));
	VALUE(recv(one, text, 16, 0));
	VALUE(recv(one, text, 16, MSG_DONTWAIT));
	VALUE(sendto(two, "x", 1, 0, NULL, 0));
	VALUE(sendto(two, "x", 1, 0, (struct sockaddr *)&to, 4));
	return 0;
}
