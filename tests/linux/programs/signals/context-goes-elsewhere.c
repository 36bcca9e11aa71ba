// calls: rt_sigaction rt_sigreturn
// flags: SA_SIGINFO
// what: a handler may send the thread anywhere: to an address that is none, without vector state, onto no stack
#include "../check.h"
#include <setjmp.h>
#include <ucontext.h>

static sigjmp_buf back;
static int mode;

static void handle(int number, siginfo_t *info, void *context)
{
	ucontext_t *saved = context;
	(void)info;
	printf("%s\n", signal_name(number));
	if (number == SIGSEGV)
		siglongjmp(back, 1);
	switch (mode) {
	case 0:
		saved->uc_mcontext.gregs[REG_RIP] = 0x4141414141414141;
		break;
	case 1:
		saved->uc_mcontext.gregs[REG_RIP] = 0x1000;
		break;
	case 2:
		saved->uc_mcontext.fpregs = NULL;
		saved->uc_mcontext.gregs[REG_EFL] |= 0x3000; /* privileges that nobody has */
		break;
	case 3:
		((uint32_t *)saved->uc_mcontext.fpregs)[6] = 0xffffffff; /* bits of MXCSR that do not exist */
		memset((char *)saved->uc_mcontext.fpregs + 512, 0xff, 64);
		saved->uc_mcontext.fpregs = NULL;
		break;
	}
}

int main(void)
{
	static char memory[65536];
	stack_t stack = { .ss_sp = memory, .ss_size = sizeof memory };
	struct sigaction action = { .sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER };
	MUST(sigaltstack(&stack, NULL));
	MUST(sigaction(SIGUSR1, &action, NULL));
	MUST(sigaction(SIGSEGV, &action, NULL));
	for (mode = 0; mode < 4; mode++) {
		if (sigsetjmp(back, 1) == 0) {
			raise(SIGUSR1);
			printf("mode %d: went on\n", mode);
		}
	}
	return 0;
}
