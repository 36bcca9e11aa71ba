// calls: umask setitimer rt_sigaction
// flags: ITIMER_REAL
// what: signals that arrive anywhere around a busy call site neither lose a call nor make one twice
#include "../check.h"
#include <sys/time.h>

static volatile sig_atomic_t signals;

static void handle(int number)
{
	(void)number;
	signals++;
}

int main(void)
{
	signal(SIGALRM, handle);
	struct itimerval often = {{0, 500}, {0, 500}};
	MUST(setitimer(ITIMER_REAL, &often, NULL));
	long wrong = 0, previous = 022;
	umask(022);
	for (long round = 0; signals < 50; round++) {
		long next = round & 0777, found;
		__asm__ volatile("mov $95, %%eax\n\tsyscall" : "=a"(found) : "D"(next) : "rcx", "r11", "memory");
		wrong += found != previous;
		previous = next;
	}
	struct itimerval never = {{0, 0}, {0, 0}};
	MUST(setitimer(ITIMER_REAL, &never, NULL));
	VALUE(wrong);
	return 0;
}
