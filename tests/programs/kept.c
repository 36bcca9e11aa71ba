/*
 * A function that looks whether it still has what it had before it was ready: registers, memory, threads, time.
 *
 *   GET /   "kept", or what is not, one word a line
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <immintrin.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define PAGES 3000

static _Thread_local uint64_t local = 0x1122334455667788;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int asked, answered;
static unsigned threads_mxcsr;
static uint64_t threads_local;

/* Waits with registers of its own until it is asked, and shows them. */
static void *thread(void *unused)
{
	(void)unused;
	local = 42;
	_mm_setcsr((_mm_getcsr() & ~_MM_ROUND_MASK) | _MM_ROUND_UP);
	pthread_mutex_lock(&lock);
	for (;;) {
		while (asked == answered)
			pthread_cond_wait(&changed, &lock);
		threads_mxcsr = _mm_getcsr() & _MM_ROUND_MASK;
		threads_local = local;
		answered = asked;
		pthread_cond_broadcast(&changed);
	}
	return NULL;
}

/* accept(2) with values in registers that a system call keeps; whether they are there when it returns. */
__attribute__((target("avx"))) static long accept_with_avx(int listener, int *kept)
{
	static const uint64_t pattern[4] = { 0x0123456789abcdef, 0xfedcba9876543210, 0xa5a5a5a55a5a5a5a, 0x1 };
	uint64_t found[4] = { 0 }, r12 = 0;
	long result = SYS_accept4;
	register long flags __asm__("r10") = 0;
	__asm__ volatile("vmovdqu %[pattern], %%ymm9\n\tmov $0x7654321, %%r12\n\tsyscall\n\t"
			 "vmovdqu %%ymm9, %[found]\n\tmov %%r12, %[r12]\n\tvzeroupper"
			 : "+a"(result), [found] "=m"(found), [r12] "=m"(r12)
			 : [pattern] "m"(pattern), "D"((long)listener), "S"(0L), "d"(0L), "r"(flags)
			 : "rcx", "r11", "r12", "xmm9", "memory");
	*kept = memcmp(pattern, found, sizeof found) == 0 && r12 == 0x7654321;
	return result;
}

static void fill(uint64_t *page, uint64_t number)
{
	for (int i = 0; i < PAGE / 8; i++)
		page[i] = number * 0x9e3779b97f4a7c15 + i;
}

static int is_filled(const uint64_t *page, uint64_t number)
{
	for (int i = 0; i < PAGE / 8; i++)
		if (page[i] != number * 0x9e3779b97f4a7c15 + i)
			return 0;
	return 1;
}

int main(void)
{
	const char *port = getenv("PORT");
	uint64_t *memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int file = memfd_create("shared", 0);
	if (memory == MAP_FAILED || file < 0 || ftruncate(file, 4 * PAGE) != 0)
		return 1;
	volatile uint64_t *one = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	volatile uint64_t *other = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	/* mov eax, 7; ret, in memory that is executed, and written to before that only. */
	static const unsigned char code[] = { 0xb8, 7, 0, 0, 0, 0xc3 };
	void *made = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (one == MAP_FAILED || other == MAP_FAILED || made == MAP_FAILED)
		return 1;
	/* Every seventh page stays as it is. */
	for (uint64_t i = 0; i < PAGES; i++)
		if (i % 7 != 0)
			fill(memory + i * PAGE / 8, i);
	for (int i = 0; i < 4; i++)
		one[i * PAGE / 8] = 100 + i;
	memcpy(made, code, sizeof code);
	if (mprotect(made, PAGE, PROT_READ | PROT_EXEC) != 0 || mprotect(memory + 8 * PAGE / 8, PAGE, PROT_READ) != 0)
		return 1;
	local = 0xcafe;
	_mm_setcsr(_mm_getcsr() | _MM_ROUND_TOWARD_ZERO);
	unsigned short control = 0x0f7f;
	__asm__ volatile("fldcw %0" : : "m"(control));
	pthread_t id;
	pthread_create(&id, NULL, thread, NULL);
	struct timespec before, now;
	clock_gettime(CLOCK_MONOTONIC, &before);

	struct sockaddr_in here = { .sin_family = AF_INET, .sin_port = htons(port ? atoi(port) : 8080) };
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	if (bind(listener, (struct sockaddr *)&here, sizeof here) != 0 || listen(listener, 16) != 0)
		return 1;
	for (;;) {
		char request[4096], body[512] = "", reply[1024];
		int are_kept = 1;
		int client = __builtin_cpu_supports("avx") ? accept_with_avx(listener, &are_kept) : accept(listener, NULL, NULL);
		unsigned short now_control;
		__asm__ volatile("fnstcw %0" : "=m"(now_control));
		unsigned mxcsr = _mm_getcsr() & _MM_ROUND_MASK;
		if (client < 0 || recv(client, request, sizeof request, 0) <= 0) {
			close(client);
			continue;
		}
		if (!are_kept)
			strcat(body, "registers\n");
		if (now_control != control || mxcsr != _MM_ROUND_TOWARD_ZERO)
			strcat(body, "rounding\n");
		if (local != 0xcafe)
			strcat(body, "thread-local\n");
		int good = 1;
		/* First shared memory by both its addresses: read here, written there, read here. */
		for (int i = 0; i < 4; i++) {
			volatile uint64_t *a = &one[i * PAGE / 8], *b = &other[i * PAGE / 8];
			uint64_t was = i % 2 ? *a : *b;
			*(i % 2 ? b : a) = was + 1;
			if (was < 100 + (uint64_t)i || *a != was + 1 || *b != was + 1)
				good = 0;
		}
		if (!good)
			strcat(body, "shared\n");
		good = 1;
		/* Written to here and there before it is read, from the end to the start. */
		for (uint64_t i = PAGES; i-- > 0;) {
			uint64_t *page = memory + i * PAGE / 8;
			if (i % 11 == 0 && i % 7 != 0 && i != 8)
				page[5]++;
			if (i % 7 == 0 ? page[9] != 0 : i % 11 != 0 && !is_filled(page, i))
				good = 0;
			if (i % 11 == 0 && i % 7 != 0 && page[6] != i * 0x9e3779b97f4a7c15 + 6)
				good = 0;
		}
		if (!good)
			strcat(body, "memory\n");
		if (((int (*)(void))made)() != 7)
			strcat(body, "code\n");
		pthread_mutex_lock(&lock);
		asked++;
		pthread_cond_broadcast(&changed);
		while (asked != answered)
			pthread_cond_wait(&changed, &lock);
		pthread_mutex_unlock(&lock);
		if (threads_mxcsr != _MM_ROUND_UP || threads_local != 42)
			strcat(body, "thread\n");
		clock_gettime(CLOCK_MONOTONIC, &now);
		if (now.tv_sec < before.tv_sec || now.tv_sec - before.tv_sec > 600)
			strcat(body, "time\n");
		if (!body[0])
			strcpy(body, "kept\n");
		int length = snprintf(reply, sizeof reply,
				      "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s", strlen(body), body);
		if (write(client, reply, length) != length)
			fprintf(stderr, "nobody reads\n");
		close(client);
	}
}
