/*
 * Answers one request and ends at once, as a program does whose work is done: the answer has to arrive whole however
 * slowly it is read. GET /?bytes=N has N bytes of body.
 *
 *   musl-gcc -static -O2 -Wall -Wextra -o farewell farewell.c
 */
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { HEAD_BYTES = 4096, BODY_BYTES_MAX = 8 << 20 };

int main(void)
{
	static char text[HEAD_BYTES + BODY_BYTES_MAX];
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(8080)};
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 16)) {
		perror("farewell: cannot listen");
		return 1;
	}
	int fd = accept(listener, NULL, NULL);
	if (fd < 0 || read(fd, text, HEAD_BYTES) <= 0)
		return 2;
	const char *asked = strstr(text, "bytes=");
	size_t body = asked ? strtoul(asked + 6, NULL, 10) : 1000;
	if (body > BODY_BYTES_MAX)
		body = BODY_BYTES_MAX;
	size_t length = sprintf(text, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", body), sent = 0;
	for (size_t i = 0; i < body; i++)
		text[length++] = 'a' + i % 26;
	while (sent < length) {
		ssize_t n = write(fd, text + sent, length - sent);
		if (n <= 0)
			return 3;
		sent += n;
	}
	_exit(0);
}
