// calls: rt_sigaction
// flags: SA_SIGINFO
// what: a breakpoint instruction is SIGTRAP, and the program goes on behind it
#include "../check.h"
#include <ucontext.h>

extern char behind[];

static void handle(int number, siginfo_t *info, void *context)
{
	ucontext_t *saved = context;
	printf("%s\n", signal_name(number));
	HOLDS(info->si_code == SI_KERNEL);
	HOLDS((char *)saved->uc_mcontext.gregs[REG_RIP] == behind);
}

int main(void)
{
	struct sigaction action = { .sa_sigaction = handle, .sa_flags = SA_SIGINFO };
	MUST(sigaction(SIGTRAP, &action, NULL));
	__asm__ volatile("int3\n .globl behind\n behind:");
	puts("went on");
	return 0;
}
