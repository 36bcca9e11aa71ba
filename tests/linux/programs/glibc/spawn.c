// calls: clone3 execve wait4 pipe2
// flags: CLONE_VM CLONE_VFORK
// what: posix_spawn of the GNU C library runs the program again
#include "../check.h"

int main(int count, char **arguments)
{
	int status;
	if (count == 2) {
		printf("child: %s\n", arguments[1]);
		return 17;
	}
	pid_t child = spawn_self("hello");
	MUST(waitpid(child, &status, 0));
	show_status("child", status);
	return 0;
}
