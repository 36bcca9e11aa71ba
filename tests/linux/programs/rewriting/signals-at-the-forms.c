// calls: umask setitimer rt_sigaction
// flags: ITIMER_REAL
// what: signals that arrive anywhere around call sites that get their number from a variable lose no call and make none twice
#include "forms.h"
#include <sys/time.h>

static volatile sig_atomic_t signals;

static void handle(int number)
{
	(void)number;
	signals++;
	compared(SYS_close, -1, 0, 0);
	moved(SYS_close, -1, 0, 0, 0, 0, 0);
	stored(SYS_close, -1, 0, 0);
}

int main(void)
{
	signal(SIGALRM, handle);
	struct itimerval often = {{0, 500}, {0, 500}};
	MUST(setitimer(ITIMER_REAL, &often, NULL));
	long wrong = 0, previous = 022;
	umask(022);
	for (long round = 0; signals < 50; round++) {
		long next = round & 0777;
		wrong += compared(SYS_umask, next, 0, 0) != previous;
		wrong += compared_short(SYS_umask, next, 0, 0) != next;
		wrong += moved(SYS_umask, next, 0, 0, 0, 0, 0) != next;
		wrong += stored(SYS_umask, next, 0, 0) != next;
		previous = next;
	}
	struct itimerval never = {{0, 0}, {0, 0}};
	MUST(setitimer(ITIMER_REAL, &never, NULL));
	VALUE(wrong);
	return 0;
}
