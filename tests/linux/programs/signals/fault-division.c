// calls: rt_sigaction
// flags: SA_SIGINFO FPE_INTDIV
// what: integer division by zero is SIGFPE with FPE_INTDIV at the address of the instruction
#include "../check.h"
#include <setjmp.h>

static sigjmp_buf back;
extern char division[];

static void handle(int number, siginfo_t *info, void *context)
{
	(void)context;
	printf("%s\n", signal_name(number));
	HOLDS(info->si_code == FPE_INTDIV);
	HOLDS(info->si_addr == division);
	siglongjmp(back, 1);
}

int main(void)
{
	struct sigaction action = { .sa_sigaction = handle, .sa_flags = SA_SIGINFO };
	MUST(sigaction(SIGFPE, &action, NULL));
	if (sigsetjmp(back, 1) == 0)
		__asm__ volatile("xor %%edx, %%edx\n xor %%ecx, %%ecx\n mov $1, %%eax\n"
						 ".globl division\n division: div %%ecx" ::: "eax", "ecx", "edx");
	return 0;
}
