// calls: connect
// flags: none
// what: connecting twice, to a wrong family or length, or with what is no socket has its error
#include "../network.h"

int main(void)
{
	int ends[2];
	struct sockaddr_in address = loopback(1);
	struct sockaddr_in wrong = { .sin_family = 99 };
	tcp_pair(ends);
	VALUE(connect(ends[0], (struct sockaddr *)&address, sizeof address));
	int client = MUST(socket(AF_INET, SOCK_STREAM, 0));
	VALUE(connect(client, (struct sockaddr *)&address, 4));
	VALUE(connect(client, (struct sockaddr *)&wrong, sizeof wrong));
	VALUE(connect(client, (void *)8, sizeof address));
	VALUE(connect(0, (struct sockaddr *)&address, sizeof address));
	VALUE(connect(1000, (struct sockaddr *)&address, sizeof address));
	VALUE(connect(tcp_listener(), (struct sockaddr *)&address, sizeof address));
	return 0;
}
