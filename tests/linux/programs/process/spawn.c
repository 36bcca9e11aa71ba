// calls: vfork clone execve wait4
// flags: CLONE_VM CLONE_VFORK
// what: the program runs itself again with arguments and learns the exit status
#include "../check.h"

int main(int count, char **arguments)
{
	int status;
	if (count == 2) {
		printf("child: %s\n", arguments[1]);
		return 42;
	}
	pid_t child = spawn_self("hello");
	HOLDS(waitpid(child, &status, 0) == child && child > 0);
	show_status("child", status);
	VALUE(waitpid(child, &status, 0));
	return 0;
}
