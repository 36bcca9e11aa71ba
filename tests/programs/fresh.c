/*
 * A function that shows what is new in a clone, in lines of a name and a value.
 *
 *   /            numbers from everything that the system draws, and what memory and /dev/sysgenid look like
 *   /clocks      CLOCK_REALTIME in nanoseconds; what has become of the time-outs that began before the program was ready
 *   /sleep       waits for the one that goes by CLOCK_MONOTONIC; how long it took, in milliseconds
 *   /prepare     counts how often it was asked
 *
 *   FAILS=PATH   the path that is answered with status 500
 *   WATCHES=1    opens /dev/sysgenid so that clones wait for a confirmation, which never comes
 *   POLLS=1      asks for connections all the time, and never waits for one
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

/* linux/futex.h, which musl's compiler does not find */
enum {
	FUTEX_WAIT_BITSET = 9,
	FUTEX_PRIVATE_FLAG = 128,
	FUTEX_CLOCK_REALTIME = 256,
	FUTEX_BITSET_MATCH_ANY = -1,
};
#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#define MADV_KEEPONFORK 19
#endif

enum { PAGE = 4096, HALF_AN_HOUR_S = 1800, SLEEP_S = 4 };

static char body[4096];
static size_t length;
static int is_awake, is_timed_out, prepared;
static struct timespec started, began;
static unsigned char *memory;
static volatile uint32_t *generation;
static int device, absolute_timer, relative_timer;

static void say(const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	length += vsnprintf(body + length, sizeof body - length, format, arguments);
	va_end(arguments);
}

static void say_bytes(const char *name, const unsigned char *bytes, size_t count)
{
	say("%s ", name);
	for (size_t i = 0; i < count; i++)
		say("%02x", bytes[i]);
	say("\n");
}

static void say_file(const char *name, const char *path, size_t count)
{
	unsigned char bytes[64];
	int file = open(path, O_RDONLY);
	if (file < 0 || read(file, bytes, count) != (ssize_t)count)
		exit(1);
	close(file);
	say_bytes(name, bytes, count);
}

static void say_all(void)
{
	unsigned char bytes[16];
	if (getrandom(bytes, sizeof bytes, 0) != sizeof bytes)
		exit(1);
	say_bytes("getrandom", bytes, sizeof bytes);
	say_file("urandom", "/dev/urandom", 16);
	say_file("random", "/dev/random", 16);
	say_file("uuid", "/proc/sys/kernel/random/uuid", 36);
	say_file("boot_id", "/proc/sys/kernel/random/boot_id", 36);
	say_bytes("AT_RANDOM", (unsigned char *)getauxval(AT_RANDOM), 16);
	say("pages %d %d %d\n", memory[0], memory[PAGE], memory[2 * PAGE]);
	uint32_t read_generation = 0;
	struct pollfd poll_device = { .fd = device, .events = POLLIN };
	int is_ready = poll(&poll_device, 1, 0);
	ssize_t count = read(device, &read_generation, sizeof read_generation);
	say("generation %u %u %d %d\n", *generation, read_generation, is_ready, (int)count);
	say("prepared %d\n", prepared);
}

static int is_due(int timer)
{
	uint64_t count;
	return read(timer, &count, sizeof count) == sizeof count;
}

static long since_start_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (now.tv_sec - started.tv_sec) * 1000 + (now.tv_nsec - started.tv_nsec) / 1000000;
}

static void say_clocks(void)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	say("realtime %lld%09ld\n", (long long)now.tv_sec, now.tv_nsec);
	say("age %lld\n", (long long)(now.tv_sec - began.tv_sec));
	/* The threads that are due run as soon as this one waits. */
	for (int i = 0; i < 1000 && is_timed_out < 2; i++)
		usleep(1000);
	say("since_start %ld\n", since_start_ms());
	say("asleep %d\n", !is_awake);
	say("timed_out %d\n", is_timed_out);
	say("timers %d %d\n", is_due(absolute_timer), is_due(relative_timer));
}

static void *sleep_for_a_while(void *nothing)
{
	struct timespec span = { .tv_sec = SLEEP_S };
	clock_nanosleep(CLOCK_MONOTONIC, 0, &span, NULL);
	is_awake = 1;
	return nothing;
}

static void *sleep_until_then(void *then)
{
	clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, then, NULL);
	is_timed_out++;
	return NULL;
}

/* As the C library of GNU waits for locks and conditions until a time of the day; that of musl waits for a span. */
static void *wait_until_then(void *then)
{
	static uint32_t word;
	int operation = FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME | FUTEX_PRIVATE_FLAG;
	if (syscall(SYS_futex, &word, operation, 0, then, NULL, FUTEX_BITSET_MATCH_ANY) != 0 && errno == ETIMEDOUT)
		is_timed_out++;
	return NULL;
}

static pthread_t start(void *(*run)(void *), void *argument)
{
	pthread_t thread;
	if (pthread_create(&thread, NULL, run, argument) != 0)
		exit(1);
	return thread;
}

int main(void)
{
	const char *port = getenv("PORT"), *fails = getenv("FAILS");
	static struct timespec then;
	clock_gettime(CLOCK_MONOTONIC, &started);
	clock_gettime(CLOCK_REALTIME, &began);
	then = began;
	then.tv_sec += HALF_AN_HOUR_S;
	pthread_t sleeper = start(sleep_for_a_while, NULL);
	start(sleep_until_then, &then);
	start(wait_until_then, &then);
	struct itimerspec absolute = { .it_value = then }, relative = { .it_value.tv_sec = HALF_AN_HOUR_S };
	absolute_timer = timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK);
	relative_timer = timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK);
	timerfd_settime(absolute_timer, TFD_TIMER_ABSTIME, &absolute, NULL);
	timerfd_settime(relative_timer, 0, &relative, NULL);

	memory = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memset(memory, 42, 3 * PAGE);
	if (madvise(memory, 2 * PAGE, MADV_WIPEONFORK) != 0 || madvise(memory, PAGE, MADV_KEEPONFORK) != 0)
		return 1;
	device = open("/dev/sysgenid", (getenv("WATCHES") ? O_RDWR : O_RDONLY) | O_NONBLOCK);
	generation = mmap(NULL, sizeof *generation, PROT_READ, MAP_SHARED, device, 0);
	if (device < 0 || generation == MAP_FAILED)
		return 1;

	struct sockaddr_in here = { .sin_family = AF_INET, .sin_port = htons(port ? atoi(port) : 8080) };
	int listener = socket(AF_INET, SOCK_STREAM | (getenv("POLLS") ? SOCK_NONBLOCK : 0), 0);
	if (bind(listener, (struct sockaddr *)&here, sizeof here) != 0 || listen(listener, 16) != 0)
		return 1;
	fprintf(stderr, "booted\n");
	for (;;) {
		char request[4096] = "", path[64] = "", reply[8192];
		int client = accept(listener, NULL, NULL);
		if (client < 0 || recv(client, request, sizeof request - 1, 0) <= 0 || sscanf(request, "GET %63s", path) != 1) {
			close(client);
			continue;
		}
		length = 0;
		if (strcmp(path, "/clocks") == 0) {
			say_clocks();
		} else if (strcmp(path, "/sleep") == 0) {
			pthread_join(sleeper, NULL);
			say("slept %ld\n", since_start_ms());
		} else if (strcmp(path, "/prepare") == 0) {
			prepared++;
		} else {
			say_all();
		}
		const char *status = fails && strcmp(path, fails) == 0 ? "500 Internal Server Error" : "200 OK";
		int bytes = snprintf(reply, sizeof reply, "HTTP/1.1 %s\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s",
				     status, length, body);
		body[0] = 0;
		if (write(client, reply, bytes) != bytes)
			fprintf(stderr, "nobody reads\n");
		close(client);
	}
}
