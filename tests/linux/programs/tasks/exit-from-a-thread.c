// calls: exit_group
// flags: none
// what: exit from any thread ends all of them with its status, and runs what atexit registered
#include "../check.h"

static void farewell(void)
{
	puts("farewell");
}

static void *leave(void *argument)
{
	exit((int)(size_t)argument);
}

int main(void)
{
	pthread_t thread;
	atexit(farewell);
	pthread_create(&thread, NULL, leave, (void *)42);
	for (;;)
		pause();
}
