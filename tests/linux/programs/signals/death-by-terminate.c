// calls: kill
// flags: SIGTERM
// what: SIGTERM to oneself ends all threads; atexit handlers do not run
#include "../check.h"

static void farewell(void)
{
	puts("not reached");
}

static void *terminate(void *argument)
{
	puts("terminating");
	kill(getpid(), SIGTERM);
	return argument;
}

int main(void)
{
	pthread_t thread;
	atexit(farewell);
	pthread_create(&thread, NULL, terminate, NULL);
	for (;;)
		pause();
}
