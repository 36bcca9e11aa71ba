// calls: clone futex exit munmap
// flags: CLONE_CHILD_CLEARTID
// what: detached threads run to their end and free their stacks themselves
#include "../check.h"

static int done;

static void *count(void *argument)
{
	(void)argument;
	__atomic_add_fetch(&done, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

int main(void)
{
	pthread_attr_t detached;
	pthread_attr_init(&detached);
	pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
	for (int index = 0; index < 50; index++) {
		pthread_t thread;
		while (pthread_create(&thread, &detached, count, NULL) != 0)
			sleep_ms(1);
	}
	while (__atomic_load_n(&done, __ATOMIC_SEQ_CST) < 50)
		sleep_ms(1);
	VALUE(done);
	return 0;
}
