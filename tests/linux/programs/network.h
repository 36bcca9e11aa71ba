/* What the programs about sockets share: addresses of the loopback interface, and connected pairs. */
#ifndef NETWORK_H
#define NETWORK_H

#include "check.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

/* 127.0.0.1 with a port in the order of the machine; 0 lets the system choose. */
static inline struct sockaddr_in loopback(int port)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port) };
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return address;
}

/* ::1 with a port in the order of the machine. */
static inline struct sockaddr_in6 loopback6(int port)
{
	struct sockaddr_in6 address = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	address.sin6_addr = in6addr_loopback;
	return address;
}

/* The port that a socket of either family is bound to. */
static inline int port_of(int socket)
{
	struct sockaddr_in6 address;
	socklen_t length = sizeof address;
	MUST(getsockname(socket, (struct sockaddr *)&address, &length));
	return ntohs(address.sin6_port); /* at the same place in a sockaddr_in */
}

/* A socket of the type, bound to a port of 127.0.0.1 that the system chose. */
static inline int bound_socket(int type)
{
	struct sockaddr_in address = loopback(0);
	int made = MUST(socket(AF_INET, type, 0));
	MUST(bind(made, (struct sockaddr *)&address, sizeof address));
	return made;
}

/* A TCP socket that listens on 127.0.0.1. */
static inline int tcp_listener(void)
{
	int listener = bound_socket(SOCK_STREAM);
	MUST(listen(listener, 16));
	return listener;
}

/* A TCP connection to a port of 127.0.0.1. */
static inline int tcp_connect(int port)
{
	struct sockaddr_in address = loopback(port);
	int client = MUST(socket(AF_INET, SOCK_STREAM, 0));
	MUST(connect(client, (struct sockaddr *)&address, sizeof address));
	return client;
}

/* Both ends of a TCP connection: the one that connected, the one that was accepted. */
static inline void tcp_pair(int ends[2])
{
	int listener = tcp_listener();
	ends[0] = tcp_connect(port_of(listener));
	ends[1] = MUST(accept(listener, NULL, NULL));
	close(listener);
}

/* The name of a unix socket in the file system, or an abstract one if the text starts with '@'. */
static inline socklen_t unix_address(struct sockaddr_un *address, const char *text)
{
	*address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	strcpy(address->sun_path, text);
	if (text[0] != '@')
		return sizeof *address;
	address->sun_path[0] = 0;
	return offsetof(struct sockaddr_un, sun_path) + strlen(text);
}

/* Waits until a descriptor has one of the events. */
static inline void wait_for(int descriptor, short events)
{
	struct pollfd entry = { .fd = descriptor, .events = events };
	MUST(poll(&entry, 1, 5000) == 1 ? 0 : -1);
}

#endif
