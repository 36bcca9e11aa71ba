// calls: clone futex
// flags: none
// what: 200 threads can be alive at once
#include "../check.h"

static pthread_barrier_t barrier;

static void *meet(void *argument)
{
	pthread_barrier_wait(&barrier);
	return argument;
}

int main(void)
{
	static pthread_t threads[200];
	pthread_attr_t small;
	int made = 0;
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 16 * PAGE);
	pthread_barrier_init(&barrier, NULL, 201);
	for (int index = 0; index < 200; index++)
		made += pthread_create(&threads[index], &small, meet, NULL) == 0;
	VALUE(made);
	if (made < 200)
		return 1;
	pthread_barrier_wait(&barrier);
	for (int index = 0; index < 200; index++)
		pthread_join(threads[index], NULL);
	return 0;
}
