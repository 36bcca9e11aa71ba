/*
 * A fixed compute loop behind HTTP: the same file runs as a function and as a process, so that the two can be
 * compared. GET /?iterations=N answers "elapsed_ns=… checksum=…", timed inside with CLOCK_MONOTONIC.
 *
 *   musl-gcc -static -O2 -Wall -Wextra -o compute compute.c && PORT=8080 ./compute
 */
#include <inttypes.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { TABLE_WORDS = 1 << 15 }; /* 256 KiB: more than the first-level cache, so memory counts too */

static uint64_t table[TABLE_WORDS];

/* Integer arithmetic, data-dependent loads and stores, and some floating point: no system calls. */
static uint64_t work(uint64_t iterations)
{
	uint64_t state = 88172645463325252u;
	double sum = 0;
	for (uint64_t i = 0; i < iterations; i++) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		uint64_t *word = &table[state % TABLE_WORDS];
		*word = *word * 31 + state;
		sum += (double)(*word & 0xffff) * 0.5;
	}
	return state ^ (uint64_t)sum;
}

static uint64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + t.tv_nsec;
}

/* Reads one request head (no bodies come here) and answers it; 0 when the connection is over. */
static int serve(int fd)
{
	char head[8192], body[128], answer[256];
	size_t length = 0;
	do {
		ssize_t n = read(fd, head + length, sizeof head - 1 - length);
		if (n <= 0)
			return 0;
		head[length += n] = 0;
	} while (!strstr(head, "\r\n\r\n") && length < sizeof head - 1);

	const char *asked = strstr(head, "iterations=");
	uint64_t iterations = asked ? strtoull(asked + 11, NULL, 10) : 1000000, start = now_ns();
	uint64_t checksum = work(iterations), elapsed_ns = now_ns() - start;
	int size = sprintf(body, "elapsed_ns=%" PRIu64 " checksum=%016" PRIx64 "\n", elapsed_ns, checksum);
	int total = sprintf(answer, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s", size, body);
	return write(fd, answer, total) == total;
}

int main(void)
{
	const char *port = getenv("PORT");
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port ? atoi(port) : 8080)};
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	signal(SIGPIPE, SIG_IGN);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
	if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 16)) {
		perror("compute: cannot listen");
		return 1;
	}
	for (;;) {
		int fd = accept(listener, NULL, NULL);
		if (fd < 0)
			continue;
		while (serve(fd))
			;
		close(fd);
	}
}
