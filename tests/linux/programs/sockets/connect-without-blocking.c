// calls: connect poll getsockopt
// flags: SOCK_NONBLOCK SO_ERROR
// what: a connection in progress becomes writable; SO_ERROR tells its fate, once
#include "../network.h"

static void try(int port)
{
	struct sockaddr_in address = loopback(port);
	int client = MUST(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)), error = -1;
	socklen_t length = sizeof error;
	int result = connect(client, (struct sockaddr *)&address, sizeof address);
	HOLDS(result == 0 || errno == EINPROGRESS || errno == ECONNREFUSED);
	if (result == -1 && errno == ECONNREFUSED)
		error = errno; /* the loopback may be that fast */
	wait_for(client, POLLOUT);
	if (error == -1)
		MUST(getsockopt(client, SOL_SOCKET, SO_ERROR, &error, &length));
	puts(error_name(error));
	MUST(getsockopt(client, SOL_SOCKET, SO_ERROR, &error, &length));
	puts(error_name(error));
}

int main(void)
{
	int listener = tcp_listener(), closed = bound_socket(SOCK_STREAM);
	try(port_of(listener));
	try(port_of(closed));
	return 0;
}
