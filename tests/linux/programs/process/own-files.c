// calls: openat readlink
// flags: none
// what: /proc/self names the program, its arguments, current folder, descriptors and environment
#include "../check.h"

static void show_words(const char *path)
{
	char text[256];
	int file = MUST(open(path, O_RDONLY));
	ssize_t length = MUST(read(file, text, sizeof text));
	for (ssize_t at = 0; at < length; at += strlen(text + at) + 1)
		printf("%s: %s\n", path, text + at);
}

int main(int count, char **arguments)
{
	char target[512] = "", folder[512];
	struct stat found, same;
	if (count == 3) {
		printf("%s\n", arguments[0]);
		show_words("/proc/self/cmdline");
		show_words("/proc/self/environ");
		return 0;
	}
	enter_own_folder();
	MUST(readlink("/proc/self/cwd", target, sizeof target - 1));
	HOLDS(strcmp(target, getcwd(folder, sizeof folder)) == 0);
	memset(target, 0, sizeof target);
	MUST(readlink("/proc/self/exe", target, sizeof target - 1));
	HOLDS(target[0] == '/');
	MUST(stat(target, &found)), MUST(stat("/proc/self/exe", &same));
	HOLDS(found.st_ino == same.st_ino && found.st_size == same.st_size);
	MUST(readlink("/proc/self/root", target, sizeof target));
	HOLDS(target[0] == '/');
	chdir("/"), rmdir(own_folder);
	char *again[] = { "name", "first", "second word", NULL }, *environment[] = { "KEY=value", "OTHER=", NULL };
	execve("/proc/self/exe", again, environment);
	return 1;
}
