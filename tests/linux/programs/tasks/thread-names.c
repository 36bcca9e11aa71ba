// calls: prctl openat
// flags: PR_SET_NAME PR_GET_NAME
// what: each thread has a name of its own, of at most 15 bytes
#include "../check.h"
#include <sys/prctl.h>

static void *name_itself(void *argument)
{
	char name[16];
	prctl(PR_SET_NAME, "a name that is much too long");
	VALUE(prctl(PR_GET_NAME, name));
	printf("thread: %s\n", name);
	return argument;
}

int main(void)
{
	pthread_t thread;
	char name[16];
	VALUE(prctl(PR_SET_NAME, "main thread"));
	pthread_create(&thread, NULL, name_itself, NULL);
	pthread_join(thread, NULL);
	VALUE(prctl(PR_GET_NAME, name));
	printf("main: %s\n", name);
	VALUE(prctl(PR_SET_NAME, NULL));
	return 0;
}
