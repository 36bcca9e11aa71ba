// calls: rt_sigaction wait4
// flags: SIGCHLD SA_NOCLDWAIT
// what: SIGCHLD tells the end of a child; when it is ignored children leave nothing to wait for
#include "../check.h"

int main(int count, char **arguments)
{
	siginfo_t info;
	sigset_t set;
	int status;
	if (count == 2)
		return atoi(arguments[1]);
	sigemptyset(&set), sigaddset(&set, SIGCHLD);
	MUST(sigprocmask(SIG_BLOCK, &set, NULL));
	pid_t child = spawn_self("9");
	HOLDS(sigwaitinfo(&set, &info) == SIGCHLD);
	HOLDS(info.si_pid == child && info.si_code == CLD_EXITED && info.si_status == 9);
	HOLDS(waitpid(child, &status, WNOHANG) == child);
	show_status("child", status);
	signal(SIGCHLD, SIG_IGN);
	child = spawn_self("9");
	VALUE(waitpid(child, &status, 0));
	return 0;
}
