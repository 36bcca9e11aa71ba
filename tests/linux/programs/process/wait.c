// calls: wait4 waitid
// flags: WNOHANG WEXITED WNOWAIT
// what: waiting without blocking, without taking, for any child, and when there is none
#include "../check.h"

int main(int count, char **arguments)
{
	siginfo_t info;
	int status;
	char byte;
	if (count == 2) {
		(void)read(0, &byte, 1);
		return atoi(arguments[1]);
	}
	int channel[2];
	MUST(pipe2(channel, O_CLOEXEC));
	MUST(dup2(channel[0], 0));
	VALUE(waitpid(-1, &status, 0));
	VALUE(waitpid(-1, &status, WNOHANG));
	pid_t child = spawn_self("7");
	VALUE(waitpid(child, &status, WNOHANG));
	close(channel[1]); /* the child ends now */
	memset(&info, 0, sizeof info);
	VALUE(waitid(P_PID, child, &info, WEXITED | WNOWAIT));
	HOLDS(info.si_pid == child && info.si_code == CLD_EXITED && info.si_status == 7 && info.si_signo == SIGCHLD);
	HOLDS(waitpid(-1, &status, 0) == child);
	show_status("child", status);
	VALUE(waitid(P_PID, child, &info, WEXITED));
	VALUE(waitid(P_ALL, 0, &info, 0));
	VALUE(waitpid(-1, &status, 64));
	return 0;
}
