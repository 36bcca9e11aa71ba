// calls: execve execveat
// flags: E2BIG EFAULT
// what: an execve that fails leaves the program as it was
#include "../check.h"

int main(void)
{
	static char large[200000];
	char *arguments[] = { "x", NULL }, *too_long[] = { "x", large, NULL };
	memset(large, 'x', sizeof large - 1);
	VALUE(execve("/missing", arguments, NULL));
	VALUE(execve("", arguments, NULL));
	VALUE(execve("/", arguments, NULL));
	VALUE(execve("/dev/null", arguments, NULL));
	VALUE(syscall(SYS_execve, 8, arguments, NULL));
	VALUE(execve("/proc/self/exe", too_long, NULL));
	VALUE(syscall(SYS_execve, "/proc/self/exe", 8, NULL));
	return 0;
}
