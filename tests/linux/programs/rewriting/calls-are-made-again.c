// calls: read alarm rt_sigaction
// flags: SA_RESTART
// what: a call that a handler interrupts is made again from every form of call site
#include "forms.h"
#include <sys/time.h>

static int pipe_ends[2];
static volatile sig_atomic_t signals;

static void handle(int number)
{
	(void)number;
	signals++;
	MUST(write(pipe_ends[1], "x", 1));
}

static long read_short(long descriptor, char *to)
{
	long found = 0;
	__asm__ volatile("mov $0, %%eax\n\tsyscall" : "=a"(found) : "D"(descriptor), "S"(to), "d"(1) : "rcx", "r11", "memory");
	return found;
}

int main(void)
{
	struct sigaction action = {.sa_handler = handle, .sa_flags = SA_RESTART};
	MUST(sigaction(SIGALRM, &action, NULL));
	MUST(pipe(pipe_ends));
	char byte = 0;
	for (int round = 0; round < 2; round++) {
		struct itimerval soon = {{0, 0}, {0, 3000}};
		MUST(setitimer(ITIMER_REAL, &soon, NULL));
		VALUE(read_short(pipe_ends[0], &byte));
		MUST(setitimer(ITIMER_REAL, &soon, NULL));
		VALUE(compared(SYS_read, pipe_ends[0], (long)&byte, 1));
		MUST(setitimer(ITIMER_REAL, &soon, NULL));
		VALUE(compared_short(SYS_read, pipe_ends[0], (long)&byte, 1));
		MUST(setitimer(ITIMER_REAL, &soon, NULL));
		VALUE(moved(SYS_read, pipe_ends[0], (long)&byte, 1, 0, 0, 0));
		MUST(setitimer(ITIMER_REAL, &soon, NULL));
		VALUE(stored(SYS_read, pipe_ends[0], (long)&byte, 1));
		for (int call = 0; call < 3; call++) {
			MUST(setitimer(ITIMER_REAL, &soon, NULL));
			VALUE(long_read(pipe_ends[0], (long)&byte, 1));
		}
	}
	VALUE(signals);
	return 0;
}
