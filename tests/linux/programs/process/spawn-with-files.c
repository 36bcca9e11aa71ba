// calls: clone execve dup2 openat close
// flags: none
// what: a spawned program begins with the descriptors that file actions made, and loses those closed on exec
#include "../check.h"

int main(int count, char **arguments)
{
	extern char **environ;
	posix_spawn_file_actions_t actions;
	char *again[] = { "self", "child", NULL };
	int channel[2], status;
	char text[64] = "";
	pid_t child;
	if (count == 2) {
		HOLDS(fcntl(100, F_GETFD) == -1 && fcntl(101, F_GETFD) == 0);
		ssize_t length = read(0, text, sizeof text);
		printf("%s read %.*s\n", arguments[1], (int)length, text);
		return 0;
	}
	enter_own_folder();
	write_file("input", "the input");
	MUST(pipe2(channel, O_CLOEXEC));
	MUST(dup3(1, 100, O_CLOEXEC)), MUST(dup2(1, 101));
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, 0, "input", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&actions, channel[1], 1);
	ANSWER(posix_spawn(&child, "/proc/self/exe", &actions, NULL, again, environ));
	close(channel[1]);
	for (ssize_t length; (length = read(channel[0], text, sizeof text)) > 0;)
		printf("%.*s", (int)length, text);
	HOLDS(waitpid(child, &status, 0) == child);
	show_status("child", status);
	return 0;
}
