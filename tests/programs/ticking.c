/*
 * A function with something to do between its invocations: a thread counts, a hundred times a second at most.
 *
 *   GET /   how far it has come
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static atomic_ulong ticks;

static void *tick(void *unused)
{
	for (;;) {
		usleep(10000);
		ticks++;
	}
	return unused;
}

int main(void)
{
	const char *port = getenv("PORT");
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port ? atoi(port) : 8080) };
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int one = 1;
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	pthread_t thread;
	if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 16) != 0 ||
	    pthread_create(&thread, NULL, tick, NULL) != 0)
		return 1;
	for (;;) {
		int connection = accept(listener, NULL, NULL);
		char request[4096], body[32], answer[160];
		struct pollfd readable = { .fd = connection, .events = POLLIN };
		if (connection < 0 || poll(&readable, 1, 10000) != 1 || read(connection, request, sizeof request) <= 0) {
			close(connection);
			continue;
		}
		int length = snprintf(body, sizeof body, "%lu\n", atomic_load(&ticks));
		int total = snprintf(answer, sizeof answer,
			"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", length, body);
		if (write(connection, answer, total) != total)
			return 1;
		close(connection);
	}
}
