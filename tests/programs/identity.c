/*
 * A function that tells its instances apart: it answers a POST with a number that this instance has drawn when it was first
 * asked. It reads the body, of one byte, first.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

int main(void)
{
	unsigned long long identity = 0;
	const char *port = getenv("PORT");
	struct sockaddr_in here = { .sin_family = AF_INET, .sin_port = htons(port ? atoi(port) : 8080) };
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	if (bind(listener, (struct sockaddr *)&here, sizeof here) != 0 || listen(listener, 16) != 0)
		return 1;
	for (;;) {
		char request[8192] = "", reply[256], *body;
		ssize_t read_bytes, length = 0;
		int client = accept(listener, NULL, NULL);
		do {
			read_bytes = recv(client, request + length, sizeof request - 1 - length, 0);
			length += read_bytes > 0 ? read_bytes : 0;
			body = strstr(request, "\r\n\r\n");
		} while (read_bytes > 0 && (!body || body[4] == '\0'));
		if (identity == 0 && getrandom(&identity, sizeof identity, 0) != sizeof identity)
			return 1;
		length = snprintf(reply, sizeof reply,
				  "HTTP/1.1 200 OK\r\nContent-Length: 17\r\nConnection: close\r\n\r\n%016llx\n",
				  identity);
		if (read_bytes > 0 && write(client, reply, length) != length)
			return 1;
		close(client);
	}
}
