// calls: execve
// flags: none
// what: a program replaced by itself keeps its number, arguments and environment are the new ones
#include "../check.h"

int main(int count, char **arguments)
{
	extern char **environ;
	char text[32];
	if (count > 1) {
		for (int index = 0; index < count; index++)
			printf("argument %d: \"%s\"\n", index, arguments[index]);
		for (char **entry = environ; *entry; entry++)
			if (strncmp(*entry, "PID=", 4) != 0)
				printf("environment: \"%s\"\n", *entry);
		HOLDS(atoi(getenv("PID")) == getpid());
		return 3;
	}
	snprintf(text, sizeof text, "PID=%d", getpid());
	char *again[] = { "any name", "one", "", "with space", NULL };
	char *environment[] = { "KEY=value", text, "odd", "EMPTY=", NULL };
	execve("/proc/self/exe", again, environment);
	puts("not reached");
	return 1;
}
