// calls: listen connect accept
// flags: none
// what: connections wait in order, with what was sent already, until they are accepted
#include "../network.h"

int main(void)
{
	int listener = tcp_listener(), clients[8];
	char byte;
	for (int index = 0; index < 8; index++) {
		clients[index] = tcp_connect(port_of(listener));
		MUST(write(clients[index], &"abcdefgh"[index], 1));
	}
	for (int index = 0; index < 8; index++) {
		int server = MUST(accept(listener, NULL, NULL));
		MUST(read(server, &byte, 1));
		printf("%c", byte);
		close(server);
	}
	puts("");
	VALUE(listen(listener, 0));
	VALUE(listen(listener, -1));
	VALUE(listen(MUST(socket(AF_INET, SOCK_DGRAM, 0)), 4));
	VALUE(listen(0, 4));
	return 0;
}
