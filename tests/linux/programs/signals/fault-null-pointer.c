// calls: rt_sigaction
// flags: SA_SIGINFO SEGV_MAPERR
// what: a null pointer read, written or called is SIGSEGV with an address of 0, as language runtimes expect
#include "../check.h"
#include <setjmp.h>

static sigjmp_buf back;

static void handle(int number, siginfo_t *info, void *context)
{
	(void)context;
	printf("%s, MAPERR: %d, address: %ld\n", signal_name(number), info->si_code == SEGV_MAPERR, (long)info->si_addr);
	siglongjmp(back, 1);
}

int main(void)
{
	struct sigaction action = { .sa_sigaction = handle, .sa_flags = SA_SIGINFO };
	volatile int *volatile nothing = NULL;
	void (*volatile function)(void) = NULL;
	MUST(sigaction(SIGSEGV, &action, NULL));
	if (sigsetjmp(back, 1) == 0)
		printf("read %d\n", *nothing);
	if (sigsetjmp(back, 1) == 0)
		nothing[2] = 1;
	if (sigsetjmp(back, 1) == 0)
		function();
	return 0;
}
