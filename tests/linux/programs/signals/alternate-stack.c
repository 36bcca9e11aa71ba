// calls: sigaltstack
// flags: SS_DISABLE MINSIGSTKSZ
// what: an alternate stack is set, asked for and disabled; one that is too small is ENOMEM, bad flags EINVAL
#include "../check.h"

static void handle(int number)
{
	stack_t stack, other = { .ss_flags = SS_DISABLE };
	(void)number;
	MUST(sigaltstack(NULL, &stack));
	HOLDS(stack.ss_flags == SS_ONSTACK);
	VALUE(sigaltstack(&other, NULL));
}

int main(void)
{
	struct sigaction action = { .sa_handler = handle, .sa_flags = SA_ONSTACK };
	static char memory[65536];
	stack_t stack = { .ss_sp = memory, .ss_size = sizeof memory }, found;
	MUST(sigaltstack(NULL, &found));
	HOLDS(found.ss_flags == SS_DISABLE);
	VALUE(sigaltstack(&stack, &found));
	MUST(sigaltstack(NULL, &found));
	HOLDS(found.ss_sp == memory && found.ss_size == sizeof memory && found.ss_flags == 0);
	MUST(sigaction(SIGUSR1, &action, NULL));
	raise(SIGUSR1);
	stack.ss_size = 1000;
	VALUE(syscall(SYS_sigaltstack, &stack, NULL));
	stack.ss_size = sizeof memory, stack.ss_flags = 64;
	VALUE(syscall(SYS_sigaltstack, &stack, NULL));
	stack.ss_flags = SS_DISABLE;
	VALUE(sigaltstack(&stack, NULL));
	return 0;
}
