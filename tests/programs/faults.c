/*
 * An HTTP/1.1 server, one connection at a time, that does what no function should.
 *
 *   musl-gcc -static -O2 -Wall -Wextra -o faults faults.c
 *
 *   START=exit|sleep|spin, in the environment: what it does instead of listening
 *
 *   /              answers "ok"                      /spin          computes for ever
 *   /flood         prints lines for ever             /line          prints one line, answers "ok"
 *   /memory        touches memory until it gets none, then aborts
 *   /null          writes to an address that is nobody's
 *   /hold?bytes=N  touches N bytes and keeps them, answers "ok"
 *   /endless       a body without length and end     /two-parts     such a body of two parts, then closes
 *   /retire?ms=N   answers "ok", and exits after N milliseconds, whatever arrives meanwhile
 *   /wait?ms=N     answers "ok" after N milliseconds
 *   /half          reads the head only, then exits with status 4
 */
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { INPUT_BYTES = 65536, LINE_BYTES = 80 };

static char input[INPUT_BYTES + 1];

static void put(int fd, const char *text)
{
	size_t length = strlen(text), sent = 0;
	while (sent < length) {
		ssize_t n = write(fd, text + sent, length - sent);
		if (n <= 0)
			return;
		sent += n;
	}
}

static void put_ok(int fd)
{
	put(fd, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n");
}

static unsigned long number(const char *name)
{
	const char *at = strstr(input, name);
	return at ? strtoul(at + strlen(name), NULL, 10) : 0;
}

static void spin(void)
{
	for (volatile unsigned long turns = 0;; turns++)
		;
}

static void flood(void)
{
	char line[LINE_BYTES + 1];
	memset(line, 'x', LINE_BYTES);
	line[LINE_BYTES] = 0;
	for (;;)
		puts(line);
}

static void take_memory(void)
{
	for (;;) {
		char *piece = malloc(1 << 20);
		if (!piece)
			abort();
		memset(piece, 1, 1 << 20);
	}
}

static void hold(unsigned long bytes)
{
	char *memory = malloc(bytes);
	if (!memory)
		abort();
	memset(memory, 1, bytes);
	/* So that the compiler believes that somebody reads it. */
	__asm__ volatile("" : : "r"(memory) : "memory");
}

static void endless(int fd)
{
	put(fd, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
	for (;;) {
		if (write(fd, "another line\n", 13) != 13)
			return;
		usleep(1000);
	}
}

static void two_parts(int fd)
{
	put(fd, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nfirst ");
	usleep(10000);
	put(fd, "second");
}

/* Serves one request; whether the connection stays. */
static int serve(int fd)
{
	size_t length = 0;
	do {
		/* gVisor of Debian 12 answers EAGAIN to a read that would wait (docs/sandboxes.md). */
		poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, -1);
		ssize_t n = read(fd, input + length, INPUT_BYTES - length);
		if (n <= 0)
			return 0;
		length += n;
		input[length] = 0;
	} while (!strstr(input, "\r\n\r\n"));
	char *path = strchr(input, ' ');
	path = path ? path + 1 : input;
	if (!strncmp(path, "/spin", 5))
		spin();
	if (!strncmp(path, "/flood", 6))
		flood();
	if (!strncmp(path, "/memory", 7))
		take_memory();
	if (!strncmp(path, "/null", 5)) {
		int *volatile nowhere = (int *)8;
		*nowhere = 1;
	}
	if (!strncmp(path, "/half", 5))
		_exit(4);
	if (!strncmp(path, "/endless", 8)) {
		endless(fd);
		return 0;
	}
	if (!strncmp(path, "/two-parts", 10)) {
		two_parts(fd);
		return 0;
	}
	if (!strncmp(path, "/hold", 5))
		hold(number("bytes="));
	if (!strncmp(path, "/line", 5)) {
		puts("a line");
		fflush(stdout);
	}
	if (!strncmp(path, "/wait", 5))
		usleep(number("ms=") * 1000);
	put_ok(fd);
	if (!strncmp(path, "/retire", 7)) {
		usleep(number("ms=") * 1000);
		_exit(0);
	}
	return 1;
}

int main(void)
{
	const char *start = getenv("START");
	if (start && !strcmp(start, "exit")) {
		puts("it cannot start");
		return 7;
	}
	while (start && !strcmp(start, "sleep"))
		pause();
	if (start && !strcmp(start, "spin"))
		spin();
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(8080)};
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 16)) {
		perror("faults: cannot listen");
		return 1;
	}
	for (;;) {
		int fd = accept(listener, NULL, NULL);
		if (fd < 0)
			return 2;
		while (serve(fd))
			;
		close(fd);
	}
}
