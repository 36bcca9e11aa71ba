// calls: connect sendto recvfrom getpeername
// flags: AF_UNSPEC
// what: a connected datagram socket hears only its peer, learns that nobody is there, and can be disconnected
#include "../network.h"

int main(void)
{
	int one = bound_socket(SOCK_DGRAM), two = bound_socket(SOCK_DGRAM), stranger = bound_socket(SOCK_DGRAM);
	struct sockaddr_in of_one = loopback(port_of(one)), of_two = loopback(port_of(two)),
			nowhere = { .sin_family = AF_UNSPEC };
	socklen_t length = sizeof of_one;
	char text[16] = "";
	VALUE(connect(one, (struct sockaddr *)&of_two, sizeof of_two));
	MUST(sendto(stranger, "stranger", 8, 0, (struct sockaddr *)&of_one, sizeof of_one));
	MUST(sendto(two, "peer", 4, 0, (struct sockaddr *)&of_one, sizeof of_one));
	VALUE(recv(one, text, 16, 0));
	puts(text);
	VALUE(send(one, "to peer", 7, 0));
	VALUE(recv(two, text, 16, 0));
	close(two);
	VALUE(send(one, "x", 1, 0));
	wait_for(one, POLLIN);
	VALUE(recv(one, text, 16, 0));
	VALUE(connect(one, (struct sockaddr *)&nowhere, sizeof nowhere));
	VALUE(getpeername(one, (struct sockaddr *)&of_two, &length));
	VALUE(send(one, "x", 1, 0));
	return 0;
}
