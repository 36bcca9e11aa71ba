// calls: setsockopt bind listen
// flags: SO_REUSEADDR SO_REUSEPORT
// what: with SO_REUSEADDR a port can be bound again after its connections, not while somebody listens
#include "../network.h"

static int bind_with(int option, int port, int *made)
{
	int on = 1;
	struct sockaddr_in address = loopback(port);
	*made = MUST(socket(AF_INET, SOCK_STREAM, 0));
	if (option)
		MUST(setsockopt(*made, SOL_SOCKET, option, &on, sizeof on));
	return bind(*made, (struct sockaddr *)&address, sizeof address);
}

int main(void)
{
	int first, second, third, fourth;
	MUST(bind_with(SO_REUSEADDR, 0, &first));
	MUST(listen(first, 4));
	int port = port_of(first);
	VALUE(bind_with(SO_REUSEADDR, port, &second));
	int client = tcp_connect(port), server = MUST(accept(first, NULL, NULL));
	close(first), close(server), close(client); /* the server's side remembers the connection for a while */
	VALUE(bind_with(SO_REUSEADDR, port, &second));
	VALUE(listen(second, 4));
	MUST(bind_with(SO_REUSEPORT, 0, &third));
	MUST(listen(third, 4));
	VALUE(bind_with(SO_REUSEPORT, port_of(third), &fourth));
	VALUE(listen(fourth, 4));
	return 0;
}
