// calls: rt_sigaction
// flags: SA_SIGINFO
// what: the saved context holds the mask of the interrupted program, its stack pointer and its vector state
#include "../check.h"
#include <ucontext.h>

static char *stack_of_main;

static void handle(int number, siginfo_t *info, void *context)
{
	ucontext_t *saved = context;
	char *stack_pointer = (char *)saved->uc_mcontext.gregs[REG_RSP];
	(void)number, (void)info;
	HOLDS(sigismember(&saved->uc_sigmask, SIGHUP) && !sigismember(&saved->uc_sigmask, SIGUSR1));
	HOLDS(stack_pointer <= stack_of_main && stack_pointer > stack_of_main - PAGE);
	HOLDS(saved->uc_mcontext.fpregs != NULL);
	HOLDS(((uintptr_t)saved->uc_mcontext.fpregs & 15) == 0);
	HOLDS(saved->uc_mcontext.gregs[REG_RIP] != 0);
	HOLDS(((uintptr_t)__builtin_frame_address(0) & 15) == 0);
	sigaddset(&saved->uc_sigmask, SIGUSR2); /* the mask after the handler */
}

int main(void)
{
	struct sigaction action = { .sa_sigaction = handle, .sa_flags = SA_SIGINFO };
	char local;
	sigset_t set, mask;
	stack_of_main = &local;
	sigemptyset(&set), sigaddset(&set, SIGHUP);
	MUST(sigprocmask(SIG_BLOCK, &set, NULL));
	MUST(sigaction(SIGUSR1, &action, NULL));
	kill(getpid(), SIGUSR1);
	sigprocmask(SIG_BLOCK, NULL, &mask);
	HOLDS(sigismember(&mask, SIGHUP) && sigismember(&mask, SIGUSR2) && !sigismember(&mask, SIGUSR1));
	return 0;
}
