/*
 * A function that shows what a clone has of its own, and what of the instance that it was copied from.
 *
 *   GET /          one line for each: bytes drawn before the program was ready, bytes drawn now, the boot's number,
 *                  how often this instance was asked, seconds of CLOCK_REALTIME, and of CLOCK_MONOTONIC since the start
 *   OUTSIDE=PORT   connects to this port of 127.0.0.1 before it is ready
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static struct sockaddr_in place(const char *address, int port)
{
	struct sockaddr_in place = { .sin_family = AF_INET, .sin_port = htons(port) };
	inet_pton(AF_INET, address, &place.sin_addr);
	return place;
}

static void draw(char *text)
{
	unsigned char bytes[16];
	if (getrandom(bytes, sizeof bytes, 0) != sizeof bytes)
		_exit(1);
	for (size_t i = 0; i < sizeof bytes; i++)
		sprintf(text + 2 * i, "%02x", bytes[i]);
}

static long now(clockid_t clock)
{
	struct timespec time;
	clock_gettime(clock, &time);
	return time.tv_sec;
}

int main(void)
{
	char before[33], drawn[33], boot[37] = "";
	const char *port = getenv("PORT"), *outside = getenv("OUTSIDE");
	long started = now(CLOCK_MONOTONIC);
	int asked = 0;
	draw(before);
	fprintf(stderr, "booted\n");
	if (outside) {
		struct sockaddr_in to = place("127.0.0.1", atoi(outside));
		if (connect(socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr *)&to, sizeof to) != 0)
			return 1;
	}
	struct sockaddr_in here = place("0.0.0.0", port ? atoi(port) : 8080);
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	if (bind(listener, (struct sockaddr *)&here, sizeof here) != 0 || listen(listener, 16) != 0)
		return 1;
	for (;;) {
		char request[4096], body[512], reply[1024];
		int client = accept(listener, NULL, NULL);
		if (client < 0 || recv(client, request, sizeof request, 0) <= 0) {
			close(client);
			continue;
		}
		draw(drawn);
		FILE *file = fopen("/proc/sys/kernel/random/boot_id", "r");
		if (!file || fread(boot, 1, 36, file) != 36)
			return 1;
		fclose(file);
		int bytes = snprintf(body, sizeof body, "%s\n%s\n%s\n%d\n%ld\n%ld\n", before, drawn, boot, ++asked,
				     now(CLOCK_REALTIME), now(CLOCK_MONOTONIC) - started);
		int length = snprintf(reply, sizeof reply,
				      "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", bytes, body);
		if (write(client, reply, length) != length)
			fprintf(stderr, "nobody reads\n");
		close(client);
	}
}
