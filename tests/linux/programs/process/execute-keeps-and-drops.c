// calls: execve rt_sigaction rt_sigprocmask umask
// flags: FD_CLOEXEC SIG_IGN
// what: mask, ignored signals, umask and open descriptors outlive execve; handlers and close-on-exec descriptors do not
#include "../check.h"

static void handle(int number)
{
	(void)number;
}

int main(int count, char **arguments)
{
	struct sigaction action = { .sa_handler = handle };
	char *again[] = { "self", "again", NULL }, *environment[] = { NULL };
	sigset_t set;
	(void)arguments;
	if (count == 2) {
		sigprocmask(SIG_BLOCK, NULL, &set);
		HOLDS(sigismember(&set, SIGUSR1) && !sigismember(&set, SIGUSR2));
		sigaction(SIGUSR2, NULL, &action);
		HOLDS(action.sa_handler == SIG_DFL);
		sigaction(SIGHUP, NULL, &action);
		HOLDS(action.sa_handler == SIG_IGN);
		HOLDS(umask(022) == 027);
		VALUE(fcntl(100, F_GETFD));
		VALUE(fcntl(101, F_GETFD));
		sigpending(&set);
		HOLDS(sigismember(&set, SIGUSR1));
		return 0;
	}
	sigemptyset(&set), sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	raise(SIGUSR1);
	sigaction(SIGUSR2, &action, NULL);
	signal(SIGHUP, SIG_IGN);
	umask(027);
	MUST(dup2(1, 100)), MUST(dup3(1, 101, O_CLOEXEC));
	execve("/proc/self/exe", again, environment);
	return 1;
}
