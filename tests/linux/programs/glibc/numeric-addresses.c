// calls: openat socket
// flags: AI_NUMERICHOST AI_PASSIVE NI_NUMERICHOST
// what: numeric addresses of both families are resolved and printed without any name service
#include "../check.h"
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

static void resolve(const char *host, const char *service, int flags)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = flags }, *found;
	char address[64], port[16];
	int error = getaddrinfo(host, service, &hints, &found);
	if (error != 0) {
		printf("%s: %s\n", host, error == EAI_NONAME ? "no such name" : "another error");
		return;
	}
	for (struct addrinfo *entry = found; entry; entry = entry->ai_next) {
		getnameinfo(entry->ai_addr, entry->ai_addrlen, address, sizeof address, port, sizeof port,
				NI_NUMERICHOST | NI_NUMERICSERV);
		printf("%s port %s\n", address, port);
	}
	freeaddrinfo(found);
}

int main(void)
{
	resolve("127.0.0.1", "8080", AI_NUMERICHOST | AI_NUMERICSERV);
	resolve("::1", "443", AI_NUMERICHOST | AI_NUMERICSERV);
	resolve("no.number", "1", AI_NUMERICHOST | AI_NUMERICSERV);
	resolve("10.1", "1", AI_NUMERICHOST | AI_NUMERICSERV);
	return 0;
}
