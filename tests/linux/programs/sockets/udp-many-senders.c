// calls: sendto recvfrom
// flags: none
// what: one socket hears several senders and can answer each by its address
#include "../network.h"

int main(void)
{
	int server = bound_socket(SOCK_DGRAM), clients[4], right = 0;
	struct sockaddr_in to = loopback(port_of(server)), from;
	char text[8];
	for (int index = 0; index < 4; index++) {
		clients[index] = bound_socket(SOCK_DGRAM);
		MUST(sendto(clients[index], &"abcd"[index], 1, 0, (struct sockaddr *)&to, sizeof to));
	}
	for (int index = 0; index < 4; index++) {
		socklen_t length = sizeof from;
		MUST(recvfrom(server, text, 8, 0, (struct sockaddr *)&from, &length));
		text[0] -= 32;
		MUST(sendto(server, text, 1, 0, (struct sockaddr *)&from, length));
	}
	for (int index = 0; index < 4; index++) {
		MUST(recv(clients[index], text, 8, 0));
		right += text[0] == "ABCD"[index];
	}
	VALUE(right);
	return 0;
}
