// calls: exit exit_group
// flags: none
// what: a process lives on when its main thread ends by itself, until its last thread ends
#include "../check.h"

static void *outlive(void *argument)
{
	pthread_join(*(pthread_t *)argument, NULL);
	puts("main thread has ended");
	exit(3);
}

int main(void)
{
	static pthread_t main_thread;
	pthread_t thread;
	main_thread = pthread_self();
	pthread_create(&thread, NULL, outlive, &main_thread);
	pthread_exit(NULL);
}
