// calls: read setitimer rt_sigaction rt_sigreturn
// flags: ITIMER_REAL SA_SIGINFO
// what: a handler that interrupts a call finds the instruction pointer right behind the call in the program's text
#include "forms.h"
#include <sys/time.h>
#include <ucontext.h>

static volatile unsigned long interrupted;

static void handle(int number, siginfo_t *info, void *context)
{
	(void)number;
	(void)info;
	interrupted = ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
}

// Whether the interrupted call is the instruction before, within the forms.
static bool is_behind_a_call(void)
{
	return interrupted >= (unsigned long)compared && interrupted < (unsigned long)end_of_forms;
}

int main(void)
{
	struct sigaction action = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO};
	MUST(sigaction(SIGALRM, &action, NULL));
	int ends[2];
	MUST(pipe(ends));
	char byte;
	unsigned long first = 0;
	for (int round = 0; round < 3; round++) {
		struct itimerval soon = {{0, 0}, {0, 3000}};
		MUST(setitimer(ITIMER_REAL, &soon, NULL));
		VALUE(compared(SYS_read, ends[0], (long)&byte, 1));
		HOLDS(is_behind_a_call());
		HOLDS(round == 0 || interrupted == first);
		first = interrupted;
		MUST(setitimer(ITIMER_REAL, &soon, NULL));
		VALUE(moved(SYS_read, ends[0], (long)&byte, 1, 0, 0, 0));
		HOLDS(is_behind_a_call());
		MUST(setitimer(ITIMER_REAL, &soon, NULL));
		VALUE(long_read(ends[0], (long)&byte, 1));
		HOLDS(is_behind_a_call());
	}
	return 0;
}
