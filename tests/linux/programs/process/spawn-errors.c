// calls: execve clone
// flags: ENOENT EACCES ENOEXEC
// what: a program that is missing, not executable, not a program, or a folder cannot be spawned
#include "../check.h"

static void try(const char *path)
{
	extern char **environ;
	char *arguments[] = { "x", NULL };
	pid_t child;
	printf("%s: %s\n", path, error_name(posix_spawn(&child, path, NULL, NULL, arguments, environ)));
}

int main(void)
{
	enter_own_folder();
	write_file("data", "not a program\n");
	write_file("script", "#!missing-interpreter\n");
	write_file("garbage", "\x7f" "ELFgarbage");
	write_file("empty", "");
	try("missing");
	try("data");
	MUST(chmod("data", 0755)), MUST(chmod("script", 0755)), MUST(chmod("garbage", 0755)), MUST(chmod("empty", 0755));
	try("data");
	try("script");
	try("garbage");
	try("empty");
	try(".");
	try("data/x");
	VALUE(waitpid(-1, NULL, 0));
	return 0;
}
