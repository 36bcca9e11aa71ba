// calls: vfork execve wait4
// flags: CLONE_VFORK CLONE_VM
// what: the parent waits until its vforked child has begun another program or ended
#include "../check.h"

int main(int count, char **arguments)
{
	char *again[] = { "self", "child", NULL }, *environment[] = { NULL };
	volatile int shared = 0;
	int status;
	if (count == 2) {
		puts(arguments[1]);
		return 5;
	}
	pid_t child = vfork();
	if (child == 0) {
		shared = 1;
		execve("/proc/self/exe", again, environment);
		_exit(99);
	}
	int seen = shared;
	MUST(waitpid(child, &status, 0));
	VALUE(seen);
	show_status("child that became another program", status);
	child = vfork();
	if (child == 0) {
		shared = 2;
		_exit(6);
	}
	VALUE(shared);
	MUST(waitpid(child, &status, 0));
	show_status("child that ended", status);
	return 0;
}
