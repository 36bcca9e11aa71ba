// calls: connect getsockopt
// flags: SO_ERROR
// what: a port where nobody listens is ECONNREFUSED at once; a listener can be closed and refuses then
#include "../network.h"

int main(void)
{
	int error = 9;
	socklen_t length = sizeof error;
	int listener = tcp_listener(), port = port_of(listener);
	struct sockaddr_in address = loopback(port);
	tcp_connect(port);
	close(listener);
	int client = MUST(socket(AF_INET, SOCK_STREAM, 0));
	VALUE(connect(client, (struct sockaddr *)&address, sizeof address));
	VALUE(getsockopt(client, SOL_SOCKET, SO_ERROR, &error, &length));
	VALUE(error);
	VALUE(connect(client, (struct sockaddr *)&address, sizeof address));
	return 0;
}
