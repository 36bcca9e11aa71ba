// calls: pidfd_open poll waitid pidfd_send_signal
// flags: P_PIDFD
// what: a descriptor of a child becomes readable when it ends, takes signals, and can be waited for
#include "../check.h"

int main(int count, char **arguments)
{
	siginfo_t info = { 0 };
	(void)arguments;
	if (count == 2)
		for (;;)
			pause();
	pid_t child = spawn_self("wait");
	int descriptor = MUST(syscall(SYS_pidfd_open, child, 0));
	struct pollfd entry = { descriptor, POLLIN, 0 };
	VALUE(poll(&entry, 1, 0));
	VALUE(syscall(SYS_pidfd_send_signal, descriptor, SIGTERM, NULL, 0));
	VALUE(poll(&entry, 1, 5000));
	VALUE(waitid(3, descriptor, &info, WEXITED)); /* P_PIDFD */
	HOLDS(info.si_code == CLD_KILLED && info.si_status == SIGTERM);
	VALUE(syscall(SYS_pidfd_send_signal, descriptor, SIGTERM, NULL, 0));
	VALUE(syscall(SYS_pidfd_open, 0x3ffffff, 0));
	VALUE(syscall(SYS_pidfd_open, getpid(), 1));
	return 0;
}
