// calls: clone execve wait4 pipe2
// flags: none
// what: children run at the same time, and each is waited for once
#include "../check.h"

int main(int count, char **arguments)
{
	int sum = 0, status;
	pid_t children[5];
	char text[8];
	if (count == 2)
		return atoi(arguments[1]);
	for (int index = 0; index < 5; index++) {
		snprintf(text, sizeof text, "%d", 10 + index);
		children[index] = spawn_self(text);
	}
	for (int index = 0; index < 5; index++) {
		pid_t child = MUST(waitpid(-1, &status, 0));
		for (int known = 0; known < 5; known++)
			if (children[known] == child && WEXITSTATUS(status) == 10 + known)
				sum++, children[known] = 0;
	}
	VALUE(sum);
	VALUE(waitpid(-1, &status, 0));
	return 0;
}
