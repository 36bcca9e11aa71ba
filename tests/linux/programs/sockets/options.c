// calls: getsockopt setsockopt
// flags: SO_TYPE SO_KEEPALIVE SO_ACCEPTCONN SO_DOMAIN SO_PROTOCOL TCP_NODELAY
// what: options are read and set; unknown ones are ENOPROTOOPT, short values EINVAL
#include "../network.h"

static void show_option(int from, int level, int option, const char *what)
{
	int value = -1;
	socklen_t length = sizeof value;
	if (getsockopt(from, level, option, &value, &length) == -1)
		printf("%s: %s\n", what, error_name(errno));
	else
		printf("%s: %d, length %d\n", what, value, (int)length);
}

int main(void)
{
	int stream = tcp_listener(), on = 1;
	show_option(stream, SOL_SOCKET, SO_TYPE, "SO_TYPE");
	show_option(stream, SOL_SOCKET, SO_DOMAIN, "SO_DOMAIN");
	show_option(stream, SOL_SOCKET, SO_PROTOCOL, "SO_PROTOCOL");
	show_option(stream, SOL_SOCKET, SO_ACCEPTCONN, "SO_ACCEPTCONN");
	show_option(stream, SOL_SOCKET, SO_ERROR, "SO_ERROR");
	show_option(stream, SOL_SOCKET, SO_KEEPALIVE, "SO_KEEPALIVE");
	VALUE(setsockopt(stream, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on));
	show_option(stream, SOL_SOCKET, SO_KEEPALIVE, "SO_KEEPALIVE");
	VALUE(setsockopt(stream, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on));
	show_option(stream, IPPROTO_TCP, TCP_NODELAY, "TCP_NODELAY");
	show_option(stream, SOL_SOCKET, 9999, "unknown");
	VALUE(setsockopt(stream, SOL_SOCKET, 9999, &on, sizeof on));
	VALUE(setsockopt(stream, SOL_SOCKET, SO_KEEPALIVE, &on, 2));
	VALUE(setsockopt(stream, SOL_SOCKET, SO_KEEPALIVE, (void *)8, sizeof on));
	show_option(0, SOL_SOCKET, SO_TYPE, "no socket");
	return 0;
}
