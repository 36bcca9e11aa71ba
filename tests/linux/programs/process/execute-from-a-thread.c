// calls: execve
// flags: none
// what: execve in any thread ends the others and becomes the main thread
#include "../check.h"

static void *become(void *argument)
{
	char *again[] = { "self", "again", NULL }, *environment[] = { NULL };
	execve("/proc/self/exe", again, environment);
	return argument;
}

int main(int count, char **arguments)
{
	pthread_t thread;
	(void)arguments;
	if (count == 2) {
		HOLDS(getpid() == syscall(SYS_gettid));
		return 4;
	}
	pthread_create(&thread, NULL, become, NULL);
	for (;;)
		pause();
}
