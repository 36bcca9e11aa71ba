// calls: wait4 kill
// flags: WIFSIGNALED
// what: a child that a signal ends is told as such
#include "../check.h"

int main(int count, char **arguments)
{
	int numbers[] = { SIGTERM, SIGKILL, SIGUSR1 }, status;
	if (count == 2) {
		if (strcmp(arguments[1], "abort") == 0)
			abort();
		if (strcmp(arguments[1], "fault") == 0)
			*(volatile char *)8 = 1;
		for (;;)
			pause();
	}
	for (int index = 0; index < 3; index++) {
		pid_t child = spawn_self("wait");
		VALUE(kill(child, numbers[index]));
		MUST(waitpid(child, &status, 0));
		show_status("child", status);
		VALUE(kill(child, 0));
	}
	MUST(waitpid(spawn_self("abort"), &status, 0));
	show_status("child", status);
	MUST(waitpid(spawn_self("fault"), &status, 0));
	show_status("child", status);
	return 0;
}
