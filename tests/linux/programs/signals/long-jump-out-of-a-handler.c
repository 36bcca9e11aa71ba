// calls: rt_sigprocmask
// flags: none
// what: siglongjmp leaves a handler and restores the mask, if sigsetjmp saved it, any number of times
#include "../check.h"
#include <setjmp.h>

static sigjmp_buf back;

static void handle(int number)
{
	(void)number;
	siglongjmp(back, 1);
}

int main(void)
{
	struct sigaction action = { .sa_handler = handle };
	sigset_t mask;
	volatile int jumps = 0;
	MUST(sigaction(SIGSEGV, &action, NULL));
	for (volatile int round = 0; round < 100; round++)
		if (sigsetjmp(back, 1) == 0)
			*(volatile char *)8 = 1;
		else
			jumps++;
	VALUE(jumps);
	sigprocmask(SIG_BLOCK, NULL, &mask);
	HOLDS(!sigismember(&mask, SIGSEGV));
	if (sigsetjmp(back, 0) == 0)
		*(volatile char *)8 = 1;
	sigprocmask(SIG_BLOCK, NULL, &mask);
	HOLDS(sigismember(&mask, SIGSEGV));
	return 0;
}
