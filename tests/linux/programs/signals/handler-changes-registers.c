// calls: rt_sigaction rt_sigreturn
// flags: SA_SIGINFO
// what: registers and flags that a handler changes in the saved context are those of the program afterwards
#include "../check.h"
#include <ucontext.h>

static void handle(int number, siginfo_t *info, void *context)
{
	ucontext_t *saved = context;
	(void)number, (void)info;
	HOLDS(saved->uc_mcontext.gregs[REG_RBX] == 0x1122334455667788);
	saved->uc_mcontext.gregs[REG_RBX] = 77;
	saved->uc_mcontext.gregs[REG_R13] = 78;
	saved->uc_mcontext.gregs[REG_EFL] |= 1; /* carry */
	saved->uc_mcontext.gregs[REG_RIP] += 2;
}

int main(void)
{
	struct sigaction action = { .sa_sigaction = handle, .sa_flags = SA_SIGINFO };
	long rbx, r13;
	char carry;
	MUST(sigaction(SIGILL, &action, NULL));
	__asm__ volatile("mov $0x1122334455667788, %%rbx\n xor %%r13d, %%r13d\n clc\n ud2\n"
					 "setc %[carry]\n mov %%rbx, %[rbx]\n mov %%r13, %[r13]"
					 : [rbx] "=m"(rbx), [r13] "=m"(r13), [carry] "=m"(carry)
					 :
					 : "rbx", "r13", "cc");
	VALUE(rbx);
	VALUE(r13);
	VALUE(carry);
	return 0;
}
