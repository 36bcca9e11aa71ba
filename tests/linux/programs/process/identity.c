// calls: getpid gettid getppid getpgid getsid
// flags: none
// what: the main thread has the number of the process, other threads their own; unknown processes are ESRCH
#include "../check.h"

static pid_t own_tid, own_pid;

static void *tell(void *argument)
{
	own_tid = syscall(SYS_gettid);
	own_pid = getpid();
	return argument;
}

int main(void)
{
	pthread_t thread;
	pthread_create(&thread, NULL, tell, NULL);
	pthread_join(thread, NULL);
	HOLDS(getpid() == syscall(SYS_gettid) && getpid() > 0);
	HOLDS(own_pid == getpid() && own_tid != getpid() && own_tid > 0);
	HOLDS(getppid() >= 0 && getppid() != getpid());
	HOLDS(getpgid(0) == getpgrp() && getpgid(getpid()) == getpgrp());
	HOLDS(getsid(0) == getsid(getpid()));
	VALUE(getpgid(0x3ffffff));
	VALUE(getsid(0x3ffffff));
	VALUE(getpgid(-1));
	return 0;
}
