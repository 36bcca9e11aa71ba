/*
 * A function that tells who it is and whose files are whose: user and group, real and effective; further groups, and HOME; owners
 * of its root, of a file of its image, of which it says whether it can be written to, and of two that it makes; whether it can open its
 * output by name; whether it may listen on port 80; who the far end of a pair of sockets is; and its user
 * again, asked for so often that the call site is rewritten.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static int show_owner(char *text, size_t room, const char *path)
{
	struct stat status;
	if (stat(path, &status) != 0)
		return snprintf(text, room, "%s: %s", path, strerror(errno));
	return snprintf(text, room, "%s %u:%u", path, status.st_uid, status.st_gid);
}

static int show(char *text, size_t room)
{
	int used = snprintf(text, room, "%u %u %u %u, groups", getuid(), geteuid(), getgid(), getegid());
	gid_t groups[64];
	int count = getgroups(64, groups);
	for (int i = 0; i < count; i++)
		used += snprintf(text + used, room - used, " %u", groups[i]);
	const char *home = getenv("HOME");
	used += snprintf(text + used, room - used, ", home %s\n", home ? home : "none");
	used += show_owner(text + used, room - used, "/");
	used += snprintf(text + used, room - used, "\n");
	used += show_owner(text + used, room - used, "/data/file");
	int file = open("/data/file", O_RDWR);
	used += snprintf(text + used, room - used, ", %s\n", file >= 0 ? "writable" : strerror(errno));
	close(file);
	const char *made[] = { "/data/new", "/new" };
	for (int i = 0; i < 2; i++) {
		close(open(made[i], O_RDWR | O_CREAT, 0600));
		used += show_owner(text + used, room - used, made[i]);
		used += snprintf(text + used, room - used, "\n");
	}
	file = open("/dev/stdout", O_WRONLY);
	used += snprintf(text + used, room - used, "/dev/stdout %s\n", file >= 0 ? "opened" : strerror(errno));
	close(file);
	struct sockaddr_in low = { .sin_family = AF_INET, .sin_port = htons(80) };
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	int one = 1;
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	int is_bound = bind(listener, (struct sockaddr *)&low, sizeof low) == 0;
	used += snprintf(text + used, room - used, "port 80 %s\n", is_bound ? "bound" : strerror(errno));
	close(listener);
	int pair[2];
	struct ucred peer = { 0 };
	socklen_t length = sizeof peer;
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0) {
		getsockopt(pair[0], SOL_SOCKET, SO_PEERCRED, &peer, &length);
		close(pair[0]);
		close(pair[1]);
	}
	used += snprintf(text + used, room - used, "peer %u:%u\n", peer.uid, peer.gid);
	uid_t again = 0;
	for (int i = 0; i < 100; i++)
		again = getuid();
	return used + snprintf(text + used, room - used, "again %u\n", again);
}

int main(void)
{
	const char *port = getenv("PORT");
	struct sockaddr_in here = { .sin_family = AF_INET, .sin_port = htons(port ? atoi(port) : 8080) };
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	if (bind(listener, (struct sockaddr *)&here, sizeof here) != 0 || listen(listener, 16) != 0)
		return 1;
	for (;;) {
		char request[8192], text[4096], head[256];
		int client = accept(listener, NULL, NULL);
		/* gVisor of Debian 12 answers EAGAIN to a read that would wait (docs/sandboxes.md). */
		poll(&(struct pollfd){ .fd = client, .events = POLLIN }, 1, -1);
		if (read(client, request, sizeof request) > 0) {
			int length = show(text, sizeof text);
			int head_length = snprintf(head, sizeof head,
						   "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n",
						   length);
			if (write(client, head, head_length) != head_length || write(client, text, length) != length)
				return 1;
		}
		close(client);
	}
}
