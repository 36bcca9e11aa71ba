// calls: rt_sigaction
// flags: SA_SIGINFO SA_RESTART SA_NODEFER
// what: sigaction returns the former action; SIGKILL, SIGSTOP and unknown numbers are EINVAL
#include "../check.h"

static void handle(int number)
{
	(void)number;
}

int main(void)
{
	struct sigaction action = { .sa_handler = handle, .sa_flags = SA_RESTART | SA_NODEFER }, former;
	sigaddset(&action.sa_mask, SIGUSR2);
	VALUE(sigaction(SIGUSR1, &action, &former));
	HOLDS(former.sa_handler == SIG_DFL);
	VALUE(sigaction(SIGUSR1, NULL, &former));
	HOLDS(former.sa_handler == handle);
	HOLDS((former.sa_flags & (SA_RESTART | SA_NODEFER | SA_SIGINFO)) == (SA_RESTART | SA_NODEFER));
	HOLDS(sigismember(&former.sa_mask, SIGUSR2) && !sigismember(&former.sa_mask, SIGHUP));
	VALUE(sigaction(SIGKILL, &action, NULL));
	VALUE(sigaction(SIGSTOP, &action, NULL));
	VALUE(sigaction(SIGKILL, NULL, &former));
	VALUE(syscall(SYS_rt_sigaction, 65, NULL, NULL, 8));
	VALUE(syscall(SYS_rt_sigaction, 0, NULL, NULL, 8));
	VALUE(syscall(SYS_rt_sigaction, SIGUSR1, NULL, NULL, 16));
	return 0;
}
