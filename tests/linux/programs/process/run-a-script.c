// calls: execve
// flags: none
// what: a script is run by the program its first line names, with one argument and the path of the script
#include "../check.h"

int main(int count, char **arguments)
{
	char own[512] = "", line[600];
	int status;
	if (count > 1) {
		for (int index = 1; index < count; index++)
			puts(arguments[index]);
		return 0;
	}
	enter_own_folder();
	MUST(readlink("/proc/self/exe", own, sizeof own - 1));
	snprintf(line, sizeof line, "#! %s one argument \nrest\n", own);
	write_file("script", line);
	MUST(chmod("script", 0755));
	extern char **environ;
	char *again[] = { "dropped", "last", NULL };
	pid_t child;
	errno = posix_spawn(&child, "./script", NULL, NULL, again, environ);
	MUST(errno == 0 ? 0 : -1);
	MUST(waitpid(child, &status, 0));
	show_status("script", status);
	return 0;
}
