// calls: rt_sigprocmask
// flags: SIG_BLOCK SIG_UNBLOCK SIG_SETMASK
// what: signals are added to, taken from and set as the mask; SIGKILL and SIGSTOP cannot be blocked
#include "../check.h"

static void show_mask(void)
{
	sigset_t mask;
	sigprocmask(SIG_BLOCK, NULL, &mask);
	for (int number = 1; number < 32; number++)
		if (sigismember(&mask, number))
			printf(" %s", signal_name(number));
	puts(" blocked");
}

int main(void)
{
	sigset_t set;
	sigemptyset(&set), sigaddset(&set, SIGUSR1), sigaddset(&set, SIGHUP);
	VALUE(sigprocmask(SIG_BLOCK, &set, NULL));
	show_mask();
	sigdelset(&set, SIGHUP);
	VALUE(sigprocmask(SIG_UNBLOCK, &set, NULL));
	show_mask();
	sigaddset(&set, SIGKILL), sigaddset(&set, SIGSTOP);
	VALUE(sigprocmask(SIG_SETMASK, &set, NULL));
	show_mask();
	VALUE(sigprocmask(9, &set, NULL));
	VALUE(syscall(SYS_rt_sigprocmask, SIG_BLOCK, &set, NULL, 4));
	VALUE(syscall(SYS_rt_sigprocmask, SIG_BLOCK, (void *)8, NULL, 8));
	return 0;
}
