// calls: execve
// flags: none
// what: variables are set, replaced, removed and handed on
#include "../check.h"

int main(int count, char **arguments)
{
	extern char **environ;
	if (count == 2) {
		puts(getenv("KEPT"));
		HOLDS(getenv("REMOVED") == NULL);
		return 0;
	}
	char *again[] = { arguments[0], "again", NULL };
	VALUE(setenv("KEPT", "first", 1));
	VALUE(setenv("KEPT", "second", 0));
	VALUE(setenv("REMOVED", "x", 1));
	VALUE(unsetenv("REMOVED"));
	VALUE(setenv("A=B", "x", 1));
	puts(getenv("KEPT"));
	execve("/proc/self/exe", again, environ);
	return 1;
}
