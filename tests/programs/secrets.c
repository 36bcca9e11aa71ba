/*
 * A function that reads its secrets: for each file a line with its name, mode and contents, in the order of names; then
 * a line with the number of attempts to change them that failed as on a read-only file system, of all that were made.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define FOLDER "/var/openfaas/secrets"
#define FILE_NAME FOLDER "/key"

static int made, refused;

static void attempt(int result)
{
	made++;
	refused += result == -1 && errno == EROFS;
}

static int show(char *text, size_t room)
{
	struct dirent **names;
	int used = 0, count = scandir(FOLDER, &names, NULL, alphasort);
	for (int i = 0; i < count; i++) {
		char path[512], value[4096] = "";
		struct stat status;
		if (names[i]->d_name[0] == '.')
			continue;
		snprintf(path, sizeof path, "%s/%s", FOLDER, names[i]->d_name);
		int file = open(path, O_RDONLY);
		if (file < 0 || fstat(file, &status) != 0 || read(file, value, sizeof value - 1) < 0)
			return snprintf(text, room, "%s: %s\n", path, strerror(errno));
		close(file);
		used += snprintf(text + used, room - used, "%s %o %s\n", names[i]->d_name, status.st_mode, value);
	}
	made = refused = 0;
	attempt(open(FILE_NAME, O_WRONLY));
	attempt(open(FILE_NAME, O_RDWR | O_TRUNC));
	attempt(open(FILE_NAME, O_RDONLY | O_TRUNC));
	attempt(open(FOLDER "/other", O_WRONLY | O_CREAT, 0600));
	attempt(truncate(FILE_NAME, 0));
	attempt(unlink(FILE_NAME));
	attempt(rename(FILE_NAME, FOLDER "/other"));
	attempt(mkdir(FOLDER "/folder", 0700));
	attempt(symlink("/etc", FOLDER "/link"));
	attempt(chmod(FILE_NAME, 0666));
	attempt(chown(FILE_NAME, 1, 1));
	attempt(access(FILE_NAME, W_OK));
	return used + snprintf(text + used, room - used, "%d of %d\n", refused, made);
}

int main(void)
{
	const char *port = getenv("PORT");
	struct sockaddr_in here = { .sin_family = AF_INET, .sin_port = htons(port ? atoi(port) : 8080) };
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	if (bind(listener, (struct sockaddr *)&here, sizeof here) != 0 || listen(listener, 16) != 0)
		return 1;
	for (;;) {
		char request[8192], text[65536], head[256];
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
