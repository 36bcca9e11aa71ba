// calls: rt_sigaction
// flags: SA_SIGINFO SEGV_MAPERR
// what: reading where nothing is mapped is SIGSEGV with SEGV_MAPERR and the address
#include "../check.h"
#include <setjmp.h>

static sigjmp_buf back;
static volatile int code;
static char *volatile address;

static void handle(int number, siginfo_t *info, void *context)
{
	(void)context;
	printf("%s\n", signal_name(number));
	code = info->si_code;
	address = info->si_addr;
	siglongjmp(back, 1);
}

int main(void)
{
	struct sigaction action = { .sa_sigaction = handle, .sa_flags = SA_SIGINFO };
	volatile char *area = map_anonymous(PAGE);
	MUST(munmap((void *)area, PAGE));
	MUST(sigaction(SIGSEGV, &action, NULL));
	if (sigsetjmp(back, 1) == 0)
		printf("read %d\n", area[100]);
	HOLDS(code == SEGV_MAPERR);
	HOLDS(address == area + 100);
	if (sigsetjmp(back, 1) == 0)
		area[200] = 1;
	HOLDS(code == SEGV_MAPERR);
	HOLDS(address == area + 200);
	return 0;
}
