/*
 * An ordinary Linux HTTP/1.1 server on epoll: knows nothing of Spore, and is the proof that such a program runs in a
 * unikernel as it is. The tests run the same file natively too and compare the answers.
 *
 *   musl-gcc -static -O2 -Wall -Wextra -o httpd httpd.c && PORT=8080 ./httpd [argument]...
 *
 *   /                    a greeting                     /inspect        the request: method, target, body, x-test-* headers
 *   /echo                the body, as it comes          /header?name=N  the value of one request header
 *   /bytes?count=N       N bytes, with their length     /chunked?count=N  N bytes, in chunks
 *   /status?code=N       that status                    /environment, /arguments
 *   /identity            random, drawn once at start    /count          requests that this process has seen
 *   /sleep?ms=N          answers after N milliseconds   /log?lines=N    N lines to each of stdout and stderr
 *   /die?after=N         ends in the middle of a body   /exit?code=N    ends before the answer
 *   /close               answers, then closes the connection
 *   /clock               CLOCK_REALTIME in milliseconds
 *   /missing             1 if the system call swapoff is missing
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { INPUT_BYTES = 65536, OUTPUT_BYTES = 65536, HEAD_BYTES = 16384, EVENTS = 64 };

enum stage { HEAD, BODY, GENERATE, DRAIN };
enum body_kind { NO_BODY, SIZED, CHUNK_SIZE, CHUNK_DATA, CHUNK_END, TRAILER };

struct connection {
	int fd;
	enum stage stage;
	char input[INPUT_BYTES];
	size_t input_length;
	char output[OUTPUT_BYTES];
	size_t output_start, output_length;
	bool close_after, input_ended;
	/* The request being served. */
	char head[HEAD_BYTES]; /* NUL-terminated, line ends replaced by NUL */
	size_t head_length;
	char method[16], path[2048], query[2048];
	enum body_kind body_kind;
	uint64_t body_remaining, body_bytes, body_hash;
	bool echo, chunked_answer, head_only;
	uint64_t generate_remaining, generate_offset;
	bool die_when_generated;
};

static unsigned char identity[16];
static uint64_t requests;
static char **arguments;
extern char **environ;

/* ---- output ---- */

static size_t room(const struct connection *c)
{
	return OUTPUT_BYTES - c->output_start - c->output_length;
}

static void put(struct connection *c, const void *bytes, size_t length)
{
	if (length > room(c)) {
		memmove(c->output, c->output + c->output_start, c->output_length);
		c->output_start = 0;
	}
	if (length > room(c))
		length = room(c); /* answers made here are far smaller than the buffer; the streams check room() first */
	memcpy(c->output + c->output_start + c->output_length, bytes, length);
	c->output_length += length;
}

static void put_head(struct connection *c, int status, const char *type, int64_t length)
{
	char head[512];
	int n = snprintf(head, sizeof head, "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nX-Program: httpd\r\n", status,
			 status == 200 ? "OK" : "Status", type);
	if (length >= 0)
		n += snprintf(head + n, sizeof head - n, "Content-Length: %lld\r\n", (long long)length);
	else
		n += snprintf(head + n, sizeof head - n, "Transfer-Encoding: chunked\r\n");
	if (c->close_after)
		n += snprintf(head + n, sizeof head - n, "Connection: close\r\n");
	n += snprintf(head + n, sizeof head - n, "\r\n");
	put(c, head, n);
}

static void put_answer(struct connection *c, int status, const char *body, size_t length)
{
	put_head(c, status, "text/plain", length);
	if (!c->head_only)
		put(c, body, length);
}

static void put_chunk(struct connection *c, const char *bytes, size_t length)
{
	char size[32];
	put(c, size, snprintf(size, sizeof size, "%zx\r\n", length));
	put(c, bytes, length);
	put(c, "\r\n", 2);
}

/* ---- request head ---- */

static const char *header(const struct connection *c, const char *name)
{
	size_t length = strlen(name);
	const char *line = c->head, *end = c->head + c->head_length;
	for (line += strlen(line) + 1; line < end; line += strlen(line) + 1)
		if (!strncasecmp(line, name, length) && line[length] == ':')
			return line + length + 1 + strspn(line + length + 1, " \t");
	return NULL;
}

static uint64_t query_number(const struct connection *c, const char *name, uint64_t otherwise)
{
	size_t length = strlen(name);
	for (const char *at = c->query; at && *at; at = strchr(at, '&') ? strchr(at, '&') + 1 : NULL)
		if (!strncmp(at, name, length) && at[length] == '=')
			return strtoull(at + length + 1, NULL, 10);
	return otherwise;
}

/* Splits the head into lines; false if it is not an HTTP/1.x request. */
static bool parse_head(struct connection *c, size_t length)
{
	char target[2048], version[16];
	if (length >= HEAD_BYTES)
		return false;
	memcpy(c->head, c->input, length);
	c->head_length = length;
	c->head[length] = 0;
	for (size_t i = 0, o = 0; i <= length; i++) {
		if (c->head[i] == '\r')
			continue;
		c->head[o++] = c->head[i] == '\n' ? 0 : c->head[i];
		if (i == length)
			c->head_length = o - 1;
	}
	if (sscanf(c->head, "%15s %2047s %15s", c->method, target, version) != 3 || strncmp(version, "HTTP/1.", 7))
		return false;
	char *question = strchr(target, '?');
	snprintf(c->query, sizeof c->query, "%s", question ? question + 1 : "");
	if (question)
		*question = 0;
	snprintf(c->path, sizeof c->path, "%s", target);
	const char *connection = header(c, "connection");
	c->close_after = connection ? !strcasecmp(connection, "close") : !strcmp(version, "HTTP/1.0");
	c->head_only = !strcmp(c->method, "HEAD");
	c->body_kind = NO_BODY;
	c->body_bytes = c->body_remaining = 0;
	c->body_hash = 0xcbf29ce484222325;
	const char *encoding = header(c, "transfer-encoding"), *size = header(c, "content-length");
	if (encoding && !strcasecmp(encoding, "chunked"))
		c->body_kind = CHUNK_SIZE;
	else if (size && (c->body_remaining = strtoull(size, NULL, 10)) > 0)
		c->body_kind = SIZED;
	return true;
}

/* ---- routes that answer once the body has been read ---- */

static void answer_inspect(struct connection *c)
{
	static char text[HEAD_BYTES + 4096];
	int n = snprintf(text, sizeof text, "method %s\npath %s\nquery %s\nbody %llu bytes, fnv1a %016llx\n", c->method,
			 c->path, c->query, (unsigned long long)c->body_bytes, (unsigned long long)c->body_hash);
	const char *line = c->head, *end = c->head + c->head_length;
	for (line += strlen(line) + 1; line < end; line += strlen(line) + 1)
		if (!strncasecmp(line, "x-test-", 7)) {
			for (const char *p = line; *p; p++)
				text[n++] = p < strchr(line, ':') ? *p | 0x20 : *p;
			text[n++] = '\n';
		}
	put_answer(c, 200, text, n);
}

static void answer_list(struct connection *c, char **list)
{
	static char text[16384];
	size_t n = 0;
	for (; *list && n + strlen(*list) + 2 < sizeof text; list++)
		n += sprintf(text + n, "%s\n", *list);
	put_answer(c, 200, text, n);
}

static void answer_log(struct connection *c)
{
	uint64_t lines = query_number(c, "lines", 1);
	for (uint64_t i = 0; i < lines; i++) {
		dprintf(1, "stdout line %llu of %llu\n", (unsigned long long)i + 1, (unsigned long long)lines);
		dprintf(2, "stderr line %llu of %llu\n", (unsigned long long)i + 1, (unsigned long long)lines);
	}
	put_answer(c, 200, "logged\n", 7);
}

static void answer(struct connection *c)
{
	char text[256];
	c->stage = DRAIN;
	if (!strcmp(c->path, "/") || !strcmp(c->path, "/close")) {
		c->close_after |= c->path[1] != 0;
		put_answer(c, 200, "hello from an ordinary Linux program\n", 37);
	} else if (!strcmp(c->path, "/inspect")) {
		answer_inspect(c);
	} else if (!strcmp(c->path, "/header")) {
		const char *value = strncmp(c->query, "name=", 5) ? NULL : header(c, c->query + 5);
		put_answer(c, value ? 200 : 404, value ? value : "no such header", value ? strlen(value) : 14);
	} else if (!strcmp(c->path, "/status")) {
		put_answer(c, query_number(c, "code", 200), "status\n", 7);
	} else if (!strcmp(c->path, "/environment")) {
		answer_list(c, environ);
	} else if (!strcmp(c->path, "/arguments")) {
		answer_list(c, arguments);
	} else if (!strcmp(c->path, "/identity")) {
		int n = 0;
		for (size_t i = 0; i < sizeof identity; i++)
			n += sprintf(text + n, "%02x", identity[i]);
		put_answer(c, 200, text, n);
	} else if (!strcmp(c->path, "/count")) {
		put_answer(c, 200, text, sprintf(text, "%llu", (unsigned long long)requests));
	} else if (!strcmp(c->path, "/missing")) {
		/* Nothing that a function needs, so it is served on Linux only. */
		syscall(SYS_swapoff, NULL);
		put_answer(c, 200, text, sprintf(text, "%d", errno == ENOSYS));
	} else if (!strcmp(c->path, "/clock")) {
		struct timespec now;
		clock_gettime(CLOCK_REALTIME, &now);
		put_answer(c, 200, text, sprintf(text, "%lld", (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000));
	} else if (!strcmp(c->path, "/sleep")) {
		poll(NULL, 0, query_number(c, "ms", 0));
		put_answer(c, 200, "slept\n", 6);
	} else if (!strcmp(c->path, "/log")) {
		answer_log(c);
	} else if (!strcmp(c->path, "/exit")) {
		exit(query_number(c, "code", 0));
	} else if (!strcmp(c->path, "/bytes") || !strcmp(c->path, "/chunked") || !strcmp(c->path, "/die")) {
		bool die = c->path[1] == 'd';
		c->chunked_answer = c->path[1] == 'c';
		c->die_when_generated = die;
		c->generate_remaining = query_number(c, die ? "after" : "count", 0);
		c->generate_offset = 0;
		int64_t length = die ? 2 * c->generate_remaining + 1 : c->generate_remaining;
		put_head(c, 200, "application/octet-stream", c->chunked_answer ? -1 : length);
		c->stage = c->head_only ? DRAIN : GENERATE;
	} else {
		put_answer(c, 404, "no such path\n", 13);
	}
}

/* ---- bodies ---- */

static void take_body(struct connection *c, size_t length)
{
	for (size_t i = 0; i < length; i++)
		c->body_hash = (c->body_hash ^ (unsigned char)c->input[i]) * 0x100000001b3;
	c->body_bytes += length;
	if (c->echo && c->chunked_answer)
		put_chunk(c, c->input, length);
	else if (c->echo)
		put(c, c->input, length);
}

static void drop_input(struct connection *c, size_t length)
{
	memmove(c->input, c->input + length, c->input_length - length);
	c->input_length -= length;
}

/* Reads one line of the chunked framing; -1 if it is not complete. */
static int take_line(struct connection *c, char *line, size_t size)
{
	char *end = memchr(c->input, '\n', c->input_length);
	if (!end)
		return -1;
	size_t length = end - c->input;
	snprintf(line, size, "%.*s", (int)(length && end[-1] == '\r' ? length - 1 : length), c->input);
	drop_input(c, length + 1);
	return strlen(line);
}

/* Consumes body bytes; true while it made progress. */
static bool step_body(struct connection *c)
{
	char line[128];
	if (c->body_kind == NO_BODY) {
		if (c->echo) {
			if (c->chunked_answer)
				put(c, "0\r\n\r\n", 5);
			c->stage = DRAIN;
		} else {
			answer(c);
		}
		return true;
	}
	if (c->body_kind == SIZED || c->body_kind == CHUNK_DATA) {
		size_t free_space = OUTPUT_BYTES - c->output_length, length = c->input_length;
		if (length > c->body_remaining)
			length = c->body_remaining;
		if (c->echo && length + 64 > free_space)
			length = free_space > 64 ? free_space - 64 : 0;
		if (!length)
			return false;
		take_body(c, length);
		drop_input(c, length);
		c->body_remaining -= length;
		if (!c->body_remaining)
			c->body_kind = c->body_kind == SIZED ? NO_BODY : CHUNK_END;
		return true;
	}
	if (take_line(c, line, sizeof line) < 0)
		return false;
	if (c->body_kind == CHUNK_SIZE) {
		c->body_remaining = strtoull(line, NULL, 16);
		c->body_kind = c->body_remaining ? CHUNK_DATA : TRAILER;
	} else if (c->body_kind == CHUNK_END) {
		c->body_kind = CHUNK_SIZE;
	} else if (!*line) {
		c->body_kind = NO_BODY;
	}
	return true;
}

static bool step_generate(struct connection *c)
{
	char piece[8192];
	if (!c->generate_remaining) {
		if (c->chunked_answer)
			put(c, "0\r\n\r\n", 5);
		c->stage = DRAIN;
		return true;
	}
	size_t length = c->generate_remaining < sizeof piece ? c->generate_remaining : sizeof piece;
	if (OUTPUT_BYTES - c->output_length < length + 64)
		return false;
	for (size_t i = 0; i < length; i++)
		piece[i] = 'a' + (c->generate_offset + i) % 26;
	if (c->chunked_answer)
		put_chunk(c, piece, length);
	else
		put(c, piece, length);
	c->generate_offset += length;
	c->generate_remaining -= length;
	return true;
}

/* ---- connections ---- */

static bool step_head(struct connection *c)
{
	char *end = memmem(c->input, c->input_length, "\r\n\r\n", 4);
	if (!end) {
		if (c->input_length < INPUT_BYTES)
			return false;
		c->close_after = true;
		put_answer(c, 431, "head too large\n", 15);
		c->stage = DRAIN;
		return true;
	}
	size_t length = end + 4 - c->input;
	if (!parse_head(c, length)) {
		c->close_after = true;
		put_answer(c, 400, "not an HTTP/1.x request\n", 24);
		c->stage = DRAIN;
		return true;
	}
	drop_input(c, length);
	requests++;
	c->stage = BODY;
	c->echo = !strcmp(c->path, "/echo");
	c->chunked_answer = c->die_when_generated = false;
	if (c->echo) {
		c->chunked_answer = c->body_kind == CHUNK_SIZE;
		const char *type = header(c, "content-type");
		put_head(c, 200, type ? type : "application/octet-stream",
			 c->chunked_answer ? -1 : (int64_t)c->body_remaining);
	}
	return true;
}

static bool step(struct connection *c)
{
	switch (c->stage) {
	case HEAD:
		return step_head(c);
	case BODY:
		return step_body(c);
	case GENERATE:
		return step_generate(c);
	default:
		if (c->output_length || c->close_after)
			return false;
		c->stage = HEAD;
		return c->input_length > 0;
	}
}

/* Moves bytes until the socket would block; false when the connection is over. */
static bool serve(struct connection *c)
{
	for (;;) {
		bool moved = false;
		while (step(c))
			moved = true;
		while (c->output_length) {
			ssize_t n = write(c->fd, c->output + c->output_start, c->output_length);
			if (n < 0 && errno == EAGAIN)
				break;
			if (n < 0)
				return false;
			c->output_start += n;
			c->output_length -= n;
			moved = true;
		}
		if (!c->output_length)
			c->output_start = 0;
		if (c->stage == DRAIN && !c->output_length && c->die_when_generated)
			exit(3);
		if (c->stage == DRAIN && !c->output_length && c->close_after)
			return false;
		if (c->input_length < INPUT_BYTES && !c->input_ended) {
			ssize_t n = read(c->fd, c->input + c->input_length, INPUT_BYTES - c->input_length);
			if (n < 0 && errno != EAGAIN)
				return false;
			if (n == 0)
				c->input_ended = true;
			if (n > 0) {
				c->input_length += n;
				moved = true;
			}
		}
		if (c->input_ended && !moved && !c->output_length)
			return false;
		if (!moved)
			return true;
	}
}

static void accept_all(int epoll, int listener)
{
	int fd;
	while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
		struct connection *c = calloc(1, sizeof *c);
		struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c};
		if (!c) {
			close(fd);
			continue;
		}
		c->fd = fd;
		epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
	}
}

int main(int argc, char **argv)
{
	const char *port = getenv("PORT");
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port ? atoi(port) : 8080)};
	struct epoll_event event = {.events = EPOLLIN}, events[EVENTS];
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), epoll = epoll_create1(EPOLL_CLOEXEC);

	(void)argc;
	signal(SIGPIPE, SIG_IGN);
	arguments = argv;
	if (getrandom(identity, sizeof identity, 0) != sizeof identity) {
		perror("httpd: getrandom");
		return 1;
	}
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
	if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 128)) {
		perror("httpd: cannot listen");
		return 1;
	}
	epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
	for (;;) {
		int n = epoll_wait(epoll, events, EVENTS, -1);
		for (int i = 0; i < n; i++) {
			struct connection *c = events[i].data.ptr;
			if (!c) {
				accept_all(epoll, listener);
			} else if (!serve(c)) {
				close(c->fd);
				free(c);
			}
		}
	}
}
