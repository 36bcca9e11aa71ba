/*
 * Every system call with random arguments.
 *
 *   system-calls SEED SECONDS [-v]
 *
 * Half of the arguments are sensible (descriptors that are open, addresses of buffers full of plausible structures,
 * sizes around borders), the rest is not. The run ends at its time, or earlier with a signal that it sent to itself or
 * with memory that it took away from under its own feet: all of that is its own affair. What must never happen is that
 * the library OS fails, the monitor fails, or anything outside is touched; `fuzz/system-calls` looks after that.
 * With -v each call is printed before it is made; equal seeds make equal calls as far as time does not matter.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define CALLS 470
#define ARENA_BYTES (1ul << 20)
#define ARENA ((char *)0x10000000000ul)
#define COUNT(array) (sizeof(array) / sizeof *(array))

static uint64_t state;
static sigjmp_buf start_of_call;
static volatile int is_in_call;

static uint64_t next(void)
{
	/* xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled") */
	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return state * 0x2545f4914f6cdd1dul;
}

static uint64_t below(uint64_t bound)
{
	return next() % bound;
}

static const uint64_t numbers[] = {
	0, 1, 2, 3, 7, 8, 16, 63, 64, 100, 127, 255, 256, 1000, 4095, 4096, 4097, 8191, 8192, 65535, 65536, 65537,
	1ul << 20, (1ul << 20) + 1, 1ul << 21, 0x7ffff000, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff, 1ul << 32,
	1ul << 40, 1ul << 47, (1ul << 47) - 4096, 0x7ffffffffffff000, 0x7fffffffffffffff, 1ul << 63,
	-1ul, -2ul, -100ul, -4095ul, -4096ul, -4097ul,
};

/* Addresses that are not the program's: shared pages, the library OS, page tables, files, descriptor tables. */
static const uint64_t foreign[] = {
	0, 8, 4096, 0x60000, 0x200000000000, 0x200000001000, 0x200000002000, 0x200000004000, 0x200000040000,
	0x200000200000, 0x200000400000, 0x200000600000, 0x200000e00000, 0x208000000000, 0x1f8000000000,
	0x7fffffffe000, 0x7ffffffff000, 0x800000000000, 0xffff800000000000, 0xffffffffff600000,
};

static const char *const paths[] = {
	"/", "", ".", "..", "/tmp", "/tmp/a", "/tmp/b", "/tmp/a/b", "a", "a/", "../../..", "/dev/null", "/dev/zero",
	"/dev/full", "/dev/urandom", "/dev/stdin", "/dev/fd/3", "/dev/shm/x", "/proc/self/exe", "/proc/self/maps",
	"/proc/self/fd/4", "/proc/self/mem", "/proc/1/status", "/proc/meminfo", "/sys/devices/system/cpu/online",
	"/etc/passwd", "/etc/shadow", "/root", "//tmp//./a", "/tmp/link", "/tmp/loop",
};

static uint64_t address(void)
{
	switch (below(8)) {
	case 0:
		return foreign[below(COUNT(foreign))] + (below(2) ? 0 : below(65536));
	case 1:
		return (uint64_t)ARENA + ARENA_BYTES - below(64);
	case 2:
		return (uint64_t)ARENA + below(ARENA_BYTES / 4096) * 4096;
	default:
		return (uint64_t)ARENA + below(ARENA_BYTES) / 8 * 8;
	}
}

static uint64_t argument(void)
{
	switch (below(10)) {
	case 0:
	case 1:
		return below(40);
	case 2:
		return numbers[below(COUNT(numbers))];
	case 3:
		return 1ul << below(64);
	case 4:
		return below(1ul << below(33)) | below(1ul << below(33));
	case 5: {
		char *place = ARENA + below(ARENA_BYTES - 64);
		strcpy(place, paths[below(COUNT(paths))]);
		return (uint64_t)place;
	}
	default:
		return address();
	}
}

/* Fills a stretch of the arena with numbers that structures have. */
static void fill(void)
{
	uint64_t *place = (uint64_t *)(ARENA + below(ARENA_BYTES - 4096) / 8 * 8);
	for (unsigned index = 0; index < 32; index++)
		place[index] = below(3) ? argument() : below(64) | below(64) << 32;
}

static void handle(int number, siginfo_t *info, void *context)
{
	(void)context;
	if (is_in_call)
		siglongjmp(start_of_call, 1);
	/* A fault of our own would come again for ever: calls have taken away what we need. */
	int is_fault = number == SIGSEGV || number == SIGBUS || number == SIGILL || number == SIGFPE;
	if (is_fault && info->si_code > 0)
		signal(number, SIG_DFL);
}

/*
 * What ends a call that waits: a signal every few milliseconds. Calls block it, ignore it, stop its timer, or start
 * others that leave no time for anything; so it is put right before each call, not only now and then.
 */
static void rearm(void)
{
	static const struct sigaction action = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK};
	static const struct itimerval often = {{0, 5000}, {0, 5000}};
	sigset_t none;
	sigemptyset(&none);
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &often, NULL);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* The arena, the descriptors and the handlers, which calls destroy all the time. */
static void prepare(void)
{
	static const struct itimerval never;
	static const struct rlimit plenty = {256, 256};
	setitimer(ITIMER_VIRTUAL, &never, NULL);
	setitimer(ITIMER_PROF, &never, NULL);
	for (int timer = 0; timer < 32; timer++)
		syscall(SYS_timer_delete, timer);
	setrlimit(RLIMIT_NOFILE, &plenty);
	mmap(ARENA, ARENA_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	static char stack[65536];
	stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
	sigaltstack(&alternate, NULL);
	struct sigaction action = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK};
	for (int number = 1; number < 65; number++)
		if (number != SIGKILL && number != SIGSTOP && number != 32 && number != 33 && number != 34)
			sigaction(number, &action, NULL);
	rearm();
	int pair[2];
	for (int number = 3; number < 24; number++)
		close(number);
	if (pipe2(pair, O_NONBLOCK) == 0 && socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) == 0) {
		eventfd(1, EFD_NONBLOCK);
		epoll_create1(0);
		memfd_create("file", 0);
		open("/tmp/a", O_RDWR | O_CREAT | O_NONBLOCK, 0600);
		open("/tmp", O_RDONLY | O_DIRECTORY);
		open("/dev/null", O_RDWR);
		socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
		socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
		socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	}
	symlink("/tmp/a", "/tmp/link");
	symlink("/tmp/loop", "/tmp/loop");
}

/* Calls that change the address space stay within the arena most of the time, or the run would be short. */
static int is_about_memory(long number)
{
	switch (number) {
	case SYS_mmap: case SYS_munmap: case SYS_mprotect: case SYS_mremap: case SYS_madvise: case SYS_brk:
	case SYS_remap_file_pages: case SYS_shmat: case SYS_process_madvise: case SYS_pkey_mprotect:
		return 1;
	}
	return 0;
}

/* Calls that end the run by themselves are rare, or nothing else would be tried. */
static int is_rare(long number)
{
	switch (number) {
	case SYS_exit: case SYS_exit_group: case SYS_kill: case SYS_tkill: case SYS_tgkill: case SYS_execve:
	case SYS_execveat: case SYS_vfork: case SYS_clone: case SYS_clone3: case SYS_rt_sigreturn: case SYS_pause:
	case SYS_rt_sigqueueinfo: case SYS_rt_tgsigqueueinfo: case SYS_reboot: case SYS_fork:
	case SYS_arch_prctl: case SYS_rt_sigsuspend: case SYS_seccomp:
		return 1;
	}
	return 0;
}

/* A mask of signals in the arena that leaves out the one that ends a call. */
static uint64_t mask(void)
{
	uint64_t *place = (uint64_t *)(ARENA + below(ARENA_BYTES - 4096) / 8 * 8);
	place[0] = (next() | next()) & ~(1ul << (SIGALRM - 1));
	return (uint64_t)place;
}

/* Calls that would wait with every signal blocked, or stop the program, wait for ever: those alone are spared. */
static void spare_the_alarm(long number, uint64_t values[6])
{
	switch (number) {
	case SYS_rt_sigsuspend:
		values[0] = mask();
		break;
	case SYS_ppoll:
		values[3] = below(2) ? mask() : 0;
		break;
	case SYS_epoll_pwait: case SYS_epoll_pwait2:
		values[4] = below(2) ? mask() : 0;
		break;
	case SYS_pselect6: {
		uint64_t *pair = (uint64_t *)(ARENA + below(ARENA_BYTES - 4096) / 8 * 8);
		uint64_t inner = mask();
		pair[0] = below(2) ? inner : 0;
		pair[1] = 8;
		values[5] = (uint64_t)pair;
		break;
	}
	case SYS_kill: case SYS_tkill: case SYS_rt_sigqueueinfo:
		values[1] = (int)values[1] == SIGSTOP ? SIGCONT : values[1];
		break;
	case SYS_tgkill: case SYS_rt_tgsigqueueinfo:
		values[2] = (int)values[2] == SIGSTOP ? SIGCONT : values[2];
		break;
	}
}

/* Not the time of day, which calls may set. */
static long now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec;
}

int main(int count, char **arguments)
{
	if (count < 3) {
		fprintf(stderr, "usage: %s SEED SECONDS [-v]\n", arguments[0]);
		return 2;
	}
	state = strtoull(arguments[1], NULL, 0) * 0x9e3779b97f4a7c15ul + 1;
	long end = now() + atoi(arguments[2]);
	int is_verbose = count > 3;
	unsigned long made = 0, succeeded = 0;
	prepare();
	while (now() < end) {
		if (made % 64 == 0)
			prepare();
		long number = below(CALLS);
		if (is_rare(number) && below(200))
			continue;
		uint64_t values[6];
		if (sigsetjmp(start_of_call, 1)) {
			is_in_call = 0;
			mmap(ARENA, ARENA_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
			continue;
		}
		is_in_call = 1;
		fill();
		for (unsigned index = 0; index < 6; index++)
			values[index] = argument();
		if (is_about_memory(number) && below(100))
			values[0] = (uint64_t)ARENA + below(ARENA_BYTES / 4096) * 4096;
		if (is_about_memory(number) && below(100) && number != SYS_mmap)
			values[1] = values[1] % (ARENA_BYTES / 2);
		spare_the_alarm(number, values);
		rearm();
		if (is_verbose)
			dprintf(2, "%ld(%#lx, %#lx, %#lx, %#lx, %#lx, %#lx)\n", number, values[0], values[1], values[2],
				values[3], values[4], values[5]);
		made++;
		long result = syscall(number, values[0], values[1], values[2], values[3], values[4], values[5]);
		is_in_call = 0;
		succeeded += result >= 0;
	}
	printf("%lu calls, %lu succeeded\n", made, succeeded);
	return 0;
}
