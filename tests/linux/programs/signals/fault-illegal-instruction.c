// calls: rt_sigaction
// flags: SA_SIGINFO ILL_ILLOPN
// what: an undefined instruction is SIGILL at its address; the handler can skip it
#include "../check.h"
#include <ucontext.h>

extern char undefined[];

static void handle(int number, siginfo_t *info, void *context)
{
	ucontext_t *saved = context;
	printf("%s\n", signal_name(number));
	HOLDS(info->si_code == ILL_ILLOPN);
	HOLDS(info->si_addr == undefined);
	HOLDS((char *)saved->uc_mcontext.gregs[REG_RIP] == undefined);
	saved->uc_mcontext.gregs[REG_RIP] += 2;
}

int main(void)
{
	struct sigaction action = { .sa_sigaction = handle, .sa_flags = SA_SIGINFO };
	MUST(sigaction(SIGILL, &action, NULL));
	__asm__ volatile(".globl undefined\n undefined: ud2");
	puts("went on");
	return 0;
}
