// calls: rt_sigaction
// flags: SA_NODEFER
// what: a fault inside the handler of another signal runs its own handler, and both return
#include "../check.h"
#include <ucontext.h>

static void handle(int number, siginfo_t *info, void *context)
{
	ucontext_t *saved = context;
	(void)info;
	printf("%s begins\n", signal_name(number));
	if (number == SIGUSR1)
		__asm__ volatile("ud2");
	else
		saved->uc_mcontext.gregs[REG_RIP] += 2;
	printf("%s ends\n", signal_name(number));
}

int main(void)
{
	struct sigaction action = { .sa_sigaction = handle, .sa_flags = SA_SIGINFO };
	MUST(sigaction(SIGUSR1, &action, NULL));
	MUST(sigaction(SIGILL, &action, NULL));
	raise(SIGUSR1);
	return 0;
}
