// calls: rt_sigaction mprotect
// flags: SA_SIGINFO SEGV_ACCERR
// what: writing to read-only memory, reading PROT_NONE and running data are SIGSEGV with SEGV_ACCERR
#include "../check.h"
#include <setjmp.h>

static sigjmp_buf back;
static volatile int code;
static char *volatile address;

static void handle(int number, siginfo_t *info, void *context)
{
	(void)number, (void)context;
	code = info->si_code;
	address = info->si_addr;
	siglongjmp(back, 1);
}

int main(void)
{
	struct sigaction action = { .sa_sigaction = handle, .sa_flags = SA_SIGINFO };
	volatile char *area = map_anonymous(3 * PAGE);
	void (*data)(void) = (void (*)(void))(area + 2 * PAGE);
	area[2 * PAGE] = (char)0xc3;
	MUST(mprotect((void *)area, PAGE, PROT_READ));
	MUST(mprotect((void *)(area + PAGE), PAGE, PROT_NONE));
	MUST(sigaction(SIGSEGV, &action, NULL));
	if (sigsetjmp(back, 1) == 0)
		area[5] = 1;
	HOLDS(code == SEGV_ACCERR && address == area + 5);
	if (sigsetjmp(back, 1) == 0)
		printf("read %d\n", area[PAGE + 6]);
	HOLDS(code == SEGV_ACCERR && address == area + PAGE + 6);
	if (sigsetjmp(back, 1) == 0)
		data();
	HOLDS(code == SEGV_ACCERR && address == area + 2 * PAGE);
	return 0;
}
