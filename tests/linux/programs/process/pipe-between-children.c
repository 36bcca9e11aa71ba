// calls: clone execve pipe2 dup2 wait4
// flags: none
// what: a pipeline: one child writes what the other reads
#include "../check.h"

static pid_t start(char *mode, int from, int to)
{
	extern char **environ;
	posix_spawn_file_actions_t actions;
	char *arguments[] = { "self", mode, NULL };
	pid_t child;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, from, 0);
	posix_spawn_file_actions_adddup2(&actions, to, 1);
	errno = posix_spawn(&child, "/proc/self/exe", &actions, NULL, arguments, environ);
	return MUST(errno == 0 ? child : -1);
}

int main(int count, char **arguments)
{
	int channel[2], status, letter, lines = 0;
	if (count == 2 && arguments[1][0] == 'w') {
		for (int line = 0; line < 1000; line++)
			printf("line %d\n", line);
		return 0;
	}
	if (count == 2) {
		while ((letter = getchar()) != EOF)
			lines += letter == '\n';
		printf("%d lines\n", lines);
		return 0;
	}
	MUST(pipe2(channel, O_CLOEXEC));
	int null = MUST(open("/dev/null", O_RDONLY | O_CLOEXEC));
	start("w", null, channel[1]);
	start("r", channel[0], 1);
	close(channel[0]), close(channel[1]);
	int sum = 0;
	while (waitpid(-1, &status, 0) > 0)
		sum += status;
	VALUE(sum);
	return 0;
}
