/*
 * A program that connects to the outside.
 *
 *   outgoing tcp ADDRESS PORT    sends a line, prints the answer or the error's number
 *   outgoing udp ADDRESS PORT    sends a datagram, prints the answer or the error's number
 *   outgoing name NAME           asks the name server in 169.254.1.53 for an IPv4 address, prints it or the answer's code
 *   outgoing                     serves HTTP: GET /PORT says how connecting to that port of 127.0.0.1 went
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static struct sockaddr_in place(const char *address, int port)
{
	struct sockaddr_in place = { .sin_family = AF_INET, .sin_port = htons(port) };
	inet_pton(AF_INET, address, &place.sin_addr);
	return place;
}

/* What came back on a connected socket, or the error's number, as text. */
static void exchange(int kind, struct sockaddr_in to, char *answer, size_t room)
{
	int out = socket(AF_INET, kind, 0);
	struct timeval patience = { 5, 0 };
	setsockopt(out, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	ssize_t length = -1;
	if (connect(out, (struct sockaddr *)&to, sizeof to) == 0 && send(out, "ping", 4, MSG_NOSIGNAL) == 4)
		length = recv(out, answer, room - 1, 0);
	if (length < 0)
		length = snprintf(answer, room, "error %d", errno);
	answer[length] = 0;
	close(out);
}

static int ask_for(const char *name)
{
	unsigned char query[300] = { 1, 2, 1, 0, 0, 1 }, answer[512];
	size_t length = 12;
	for (const char *label = name; *label;) {
		size_t bytes = strcspn(label, ".");
		query[length++] = bytes;
		memcpy(query + length, label, bytes);
		length += bytes;
		label += bytes + (label[bytes] == '.');
	}
	memcpy(query + length, "\0\0\1\0\1", 5);
	length += 5;
	int out = socket(AF_INET, SOCK_DGRAM, 0);
	struct sockaddr_in server = place("169.254.1.53", 53);
	struct timeval patience = { 10, 0 };
	setsockopt(out, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	sendto(out, query, length, 0, (struct sockaddr *)&server, sizeof server);
	ssize_t received = recv(out, answer, sizeof answer, 0);
	if (received < (ssize_t)length)
		printf("no answer\n");
	else if (answer[7] == 0)
		printf("code %d\n", answer[3] & 15);
	else
		printf("%d.%d.%d.%d\n", answer[received - 4], answer[received - 3], answer[received - 2],
		       answer[received - 1]);
	return 0;
}

static int serve(void)
{
	const char *port = getenv("PORT");
	struct sockaddr_in here = place("0.0.0.0", port ? atoi(port) : 8080);
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	if (bind(listener, (struct sockaddr *)&here, sizeof here) != 0 || listen(listener, 16) != 0)
		return 1;
	for (;;) {
		char request[4096] = "", answer[256], reply[512];
		int client = accept(listener, NULL, NULL);
		if (client < 0 || recv(client, request, sizeof request - 1, 0) <= 0) {
			close(client);
			continue;
		}
		char *path = strchr(request, '/');
		exchange(SOCK_STREAM, place("127.0.0.1", path ? atoi(path + 1) : 0), answer, sizeof answer);
		int length = snprintf(reply, sizeof reply,
				      "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s",
				      strlen(answer), answer);
		send(client, reply, length, MSG_NOSIGNAL);
		close(client);
	}
}

int main(int count, char **arguments)
{
	char answer[256];
	if (count == 1)
		return serve();
	if (count == 3)
		return ask_for(arguments[2]);
	int kind = strcmp(arguments[1], "udp") == 0 ? SOCK_DGRAM : SOCK_STREAM;
	exchange(kind, place(arguments[2], atoi(arguments[3])), answer, sizeof answer);
	printf("%s\n", answer);
	return 0;
}
