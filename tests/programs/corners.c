/*
 * Corners of system calls, each as one line of text: run natively and in a unikernel, the lines must be the same.
 * Checks first, then serves the lines over HTTP, with a poll that never waits.
 *
 *   musl-gcc -static -O2 -Wall -Wextra -o corners corners.c && PORT=8080 ./corners
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static char report[16384];
static int report_length;

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	report_length += vsnprintf(report + report_length, sizeof report - report_length, format, arguments);
	va_end(arguments);
}

/* The value of a call, or the name of its error. */
static const char *result(long value)
{
	static char text[32];
	if (value >= 0)
		snprintf(text, sizeof text, "%ld", value);
	else
		snprintf(text, sizeof text, "errno %d", errno);
	return text;
}

static void check_memory(void)
{
	size_t page = 4096, large = 64 << 20;
	char *area = mmap(NULL, large, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	area[0] = 1, area[large - 1] = 2;
	say("mmap %d\n", area[0] + area[large - 1]);
	say("mprotect none %s\n", result(mprotect(area + page, page, PROT_NONE)));
	say("read into none %s\n", result(getentropy(area + page, 16)));
	say("mprotect back %s\n", result(mprotect(area + page, page, PROT_READ | PROT_WRITE)));
	area[page] = 7;
	say("madvise read-only %s", result(mprotect(area + page, page, PROT_READ)));
	say(" %s", result(madvise(area + page, page, MADV_DONTNEED)));
	say(" %d\n", area[page]);
	say("munmap middle %s\n", result(munmap(area + 16 * page, page)));
	say("mprotect over a hole %s\n", result(mprotect(area, 32 * page, PROT_READ)));
	say("munmap %s\n", result(munmap(area, large)));
	say("munmap unaligned %s\n", result(munmap(area + 1, page)));
	say("mmap of nothing %s\n", result((long)mmap(NULL, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)));

	size_t reserved = 1ul << 40;
	char *reservation = mmap(NULL, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	say("reservation %d\n", reservation != MAP_FAILED);
	char *part = reservation + reserved / 2;
	say("reservation opened %s\n", result(mprotect(part, 3 * page, PROT_READ | PROT_WRITE)));
	part[page] = 5;
	say("reservation used %d %d\n", part[page], part[2 * page]);
	char *fixed = mmap(part, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	say("fixed %d %d\n", fixed == part, fixed[0]);
	fixed = mmap(part, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	say("fixed over another %d %d\n", fixed == MAP_FAILED, errno);
	say("reservation closed %s\n", result(munmap(reservation, reserved)));

	/* Program text becomes the program's own when it is written. */
	uintptr_t text = (uintptr_t)check_memory & ~(page - 1);
	unsigned char first = *(unsigned char *)text;
	say("text opened %s\n", result(mprotect((void *)text, page, PROT_READ | PROT_WRITE | PROT_EXEC)));
	*(volatile unsigned char *)text = first;
	say("text written %d\n", *(unsigned char *)text == first);

	/* The C library's own sbrk only asks. */
	long heap = syscall(SYS_brk, 0), heap_bytes = 48 << 20;
	say("brk %d\n", syscall(SYS_brk, heap + heap_bytes) == heap + heap_bytes);
	for (long at = 0; at < heap_bytes; at += 1 << 20)
		((volatile char *)heap)[at] = 1;
	say("heap used %d\n", ((volatile char *)heap)[47 << 20]);
	say("brk back %d\n", syscall(SYS_brk, heap) == heap);
	say("brk below the heap %d\n", syscall(SYS_brk, 4096) == heap);
}

static void check_files(void)
{
	int ends[2];
	char bytes[70000] = {0};
	say("pipe %s\n", result(pipe2(ends, O_NONBLOCK)));
	say("pipe empty %s\n", result(read(ends[0], bytes, 1)));
	say("pipe full %s", result(write(ends[1], bytes, sizeof bytes)));
	say(" %s\n", result(write(ends[1], bytes, 1)));
	say("pipe read %s\n", result(read(ends[0], bytes, sizeof bytes)));
	close(ends[0]);
	say("pipe broken %s\n", result(write(ends[1], bytes, 1)));
	close(ends[1]);
	say("pipe to nowhere %s\n", result(syscall(SYS_pipe2, 8, 0)));

	uint64_t three = 3, count = 0;
	int counter = eventfd(1, EFD_NONBLOCK);
	say("eventfd write %s\n", result(write(counter, &three, sizeof three)));
	say("eventfd read %s", result(read(counter, &count, 8)));
	say(" %d", (int)count);
	say(" %s\n", result(read(counter, &count, 8)));
	say("eventfd short %s\n", result(read(counter, &count, 7)));

	int null = open("/dev/null", O_RDWR), zero = open("/dev/zero", O_RDONLY), full = open("/dev/full", O_WRONLY);
	say("null %s", result(write(null, bytes, 100)));
	say(" %s\n", result(read(null, bytes, 100)));
	memset(bytes, 1, 100);
	say("zero %s", result(read(zero, bytes, 100)));
	say(" %d\n", bytes[99]);
	say("full %s\n", result(write(full, bytes, 1)));
	say("absent %s\n", result(open("/no/such/file", O_RDONLY)));
	say("dup2 %s", result(dup2(null, 100)));
	say(" %s", result(write(100, "x", 1)));
	say(" %s\n", result(fcntl(100, F_GETFD)));
	say("bad descriptor %s\n", result(write(99, "x", 1)));
	say("bad buffer %s\n", result(write(null, (void *)8, 1)));
	say("bad vector %s\n", result(readv(zero, (void *)8, 1)));
	struct iovec vector[3] = {{bytes, 3}, {NULL, 0}, {bytes + 3, 4}};
	say("readv %s\n", result(readv(zero, vector, 3)));
}

static void check_waiting(void)
{
	struct timespec before, after, span = {0, 20000000};
	clock_gettime(CLOCK_MONOTONIC, &before);
	say("nanosleep %s\n", result(nanosleep(&span, NULL)));
	clock_gettime(CLOCK_MONOTONIC, &after);
	long slept = (after.tv_sec - before.tv_sec) * 1000000000l + after.tv_nsec - before.tv_nsec;
	say("slept long enough %d\n", slept >= 20000000);
	span.tv_nsec = 1000000000;
	say("nanosleep too long a part %s\n", result(nanosleep(&span, NULL)));

	int ends[2], epoll = epoll_create1(0), inner = epoll_create1(0);
	if (pipe2(ends, O_NONBLOCK))
		return;
	struct pollfd list[2] = {{ends[0], POLLIN | POLLRDNORM, 0}, {ends[1], POLLOUT, 0}};
	say("poll %s", result(poll(list, 2, 0)));
	say(" %x %x\n", list[0].revents, list[1].revents);
	if (write(ends[1], "x", 1) != 1)
		return;
	say("poll again %s", result(poll(list, 2, -1)));
	say(" %x %x\n", list[0].revents, list[1].revents);
	list[0].fd = -1, list[1].fd = 99;
	say("poll nothing %s", result(poll(list, 2, 10)));
	say(" %x %x\n", list[0].revents, list[1].revents);

	struct epoll_event event = {EPOLLIN | EPOLLET, {.u64 = 42}}, found[4];
	say("epoll add %s", result(epoll_ctl(epoll, EPOLL_CTL_ADD, ends[0], &event)));
	say(" %s\n", result(epoll_ctl(epoll, EPOLL_CTL_ADD, ends[0], &event)));
	say("epoll edge %s", result(epoll_wait(epoll, found, 4, 0)));
	say(" %s\n", result(epoll_wait(epoll, found, 4, 0)));
	event.events = EPOLLIN | EPOLLONESHOT;
	say("epoll one shot %s", result(epoll_ctl(epoll, EPOLL_CTL_MOD, ends[0], &event)));
	say(" %s", result(epoll_wait(epoll, found, 4, 0)));
	say(" %s\n", result(epoll_wait(epoll, found, 4, 0)));
	event.events = 0;
	say("epoll for nothing %s\n", result(epoll_ctl(epoll, EPOLL_CTL_MOD, ends[0], &event)));
	close(ends[1]);
	say("epoll hang-up %s", result(epoll_wait(epoll, found, 4, 0)));
	say(" %x %d\n", found[0].events, (int)found[0].data.u64);
	say("epoll of itself %s\n", result(epoll_ctl(epoll, EPOLL_CTL_ADD, epoll, &event)));
	event.events = EPOLLIN;
	say("epoll nested %s", result(epoll_ctl(inner, EPOLL_CTL_ADD, epoll, &event)));
	say(" %s\n", result(epoll_wait(inner, found, 4, 0)));
	say("epoll of nothing %s\n", result(epoll_ctl(epoll, EPOLL_CTL_DEL, 0, NULL)));

	struct timeval left = {0, 15000};
	fd_set set;
	FD_ZERO(&set);
	say("select %s", result(select(0, &set, NULL, NULL, &left)));
	say(" %ld\n", left.tv_usec);
	say("select of a negative number %s\n", result(select(-1, &set, NULL, NULL, &left)));
}

static void check_process(void)
{
	sigset_t set, old;
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	say("mask %s", result(sigprocmask(SIG_BLOCK, &set, NULL)));
	say(" %s", result(sigprocmask(SIG_UNBLOCK, &set, &old)));
	say(" %d\n", sigismember(&old, SIGTERM));
	say("kill 0 %s\n", result(kill(getpid(), 0)));
	say("kill of nobody %s\n", result(kill(99999999, 0)));
	say("sigaction of SIGKILL %d\n", signal(SIGKILL, SIG_IGN) == SIG_ERR);
	char *name = malloc(1 << 20), shown[16] = "";
	memset(name, 'n', (1 << 20) - 1);
	name[(1 << 20) - 1] = 0;
	say("name %s", result(prctl(PR_SET_NAME, name)));
	say(" %s", result(prctl(PR_GET_NAME, shown)));
	say(" %s\n", shown);
	free(name);
}

static int listener(int family, int port)
{
	int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port)};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
	setsockopt(fd, IPPROTO_IPV6, 26 /* IPV6_V6ONLY */, &one, sizeof one);
	void *address = family == AF_INET ? (void *)&v4 : (void *)&v6;
	socklen_t length = family == AF_INET ? sizeof v4 : sizeof v6;
	if (bind(fd, address, length) || listen(fd, 16))
		return -1;
	return fd;
}

static void check_sockets(int port)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	char byte;
	say("read unconnected %s\n", result(recv(fd, &byte, 1, 0)));
	say("accept unbound %s\n", result(accept(fd, NULL, NULL)));
	say("send to a pipe %s\n", result(send(1, &byte, 0, 0)));
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
	say("bind taken %s\n", result(bind(fd, (void *)&address, sizeof address) ? -1 : listen(fd, 1)));
	say("bind short %s\n", result(bind(fd, (void *)&address, 4)));
	say("unknown family %s\n", result(socket(77, SOCK_STREAM, 0)));
	close(fd);
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	const char *text = getenv("PORT");
	int port = text ? atoi(text) : 8080;
	check_memory();
	check_files();
	check_waiting();
	check_process();
	int v4 = listener(AF_INET, port), v6 = listener(AF_INET6, port);
	say("both families %d\n", v4 >= 0 && v6 >= 0);
	check_sockets(port);

	char answer[sizeof report + 128], request[4096];
	int length = sprintf(answer, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", report_length,
			     report);
	/* A program that polls without ever waiting must still see what comes in. */
	for (;;) {
		struct pollfd list[2] = {{v4, POLLIN, 0}, {v6, POLLIN, 0}};
		if (poll(list, 2, 0) <= 0)
			continue;
		int fd = accept(list[0].revents ? v4 : v6, NULL, NULL);
		if (fd < 0)
			continue;
		struct timeval patience = {2, 0};
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
		if (recv(fd, request, sizeof request, 0) > 0)
			for (int sent = 0, n; sent < length && (n = write(fd, answer + sent, length - sent)) > 0;)
				sent += n;
		close(fd);
	}
}
