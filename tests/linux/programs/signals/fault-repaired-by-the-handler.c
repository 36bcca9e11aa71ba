// calls: rt_sigaction mprotect
// flags: SA_SIGINFO
// what: when the handler makes the memory accessible, the instruction that failed is repeated and succeeds
#include "../check.h"

static char *area;
static volatile int faults;

static void handle(int number, siginfo_t *info, void *context)
{
	(void)number, (void)context;
	faults++;
	mprotect((void *)((uintptr_t)info->si_addr & -PAGE), PAGE, PROT_READ | PROT_WRITE);
}

int main(void)
{
	struct sigaction action = { .sa_sigaction = handle, .sa_flags = SA_SIGINFO };
	area = MUST(mmap(NULL, 8 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	MUST(sigaction(SIGSEGV, &action, NULL));
	for (int round = 0; round < 2; round++)
		for (int page = 0; page < 8; page++)
			((volatile char *)area)[page * PAGE]++;
	VALUE(faults);
	HOLDS(area[0] == 2 && area[7 * PAGE] == 2);
	return 0;
}
