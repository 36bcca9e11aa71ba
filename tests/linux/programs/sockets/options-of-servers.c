// calls: setsockopt getsockopt
// flags: SO_RCVBUF SO_SNDBUF TCP_KEEPIDLE TCP_KEEPINTVL TCP_KEEPCNT TCP_USER_TIMEOUT TCP_DEFER_ACCEPT TCP_QUICKACK
// what: what servers set is accepted, and buffers are at least as large as asked for
#include "../network.h"

int main(void)
{
	int stream = tcp_listener(), value = 32768;
	socklen_t length = sizeof value;
	VALUE(setsockopt(stream, SOL_SOCKET, SO_RCVBUF, &value, sizeof value));
	VALUE(setsockopt(stream, SOL_SOCKET, SO_SNDBUF, &value, sizeof value));
	MUST(getsockopt(stream, SOL_SOCKET, SO_SNDBUF, &value, &length));
	HOLDS(value >= 32768);
	value = 10;
	VALUE(setsockopt(stream, IPPROTO_TCP, TCP_KEEPIDLE, &value, sizeof value));
	VALUE(setsockopt(stream, IPPROTO_TCP, TCP_KEEPINTVL, &value, sizeof value));
	VALUE(setsockopt(stream, IPPROTO_TCP, TCP_KEEPCNT, &value, sizeof value));
	VALUE(setsockopt(stream, IPPROTO_TCP, TCP_USER_TIMEOUT, &value, sizeof value));
	VALUE(setsockopt(stream, IPPROTO_TCP, TCP_DEFER_ACCEPT, &value, sizeof value));
	VALUE(setsockopt(stream, IPPROTO_TCP, TCP_QUICKACK, &value, sizeof value));
	VALUE(setsockopt(stream, IPPROTO_TCP, TCP_CORK, &value, sizeof value));
	VALUE(setsockopt(stream, IPPROTO_IP, IP_TOS, &value, sizeof value));
	MUST(getsockopt(stream, IPPROTO_TCP, TCP_KEEPIDLE, &value, &length));
	VALUE(value);
	return 0;
}
