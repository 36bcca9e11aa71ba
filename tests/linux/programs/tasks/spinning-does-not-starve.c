// calls: clone sched_yield nanosleep
// flags: none
// what: a thread that computes without any system call does not keep others from running
#include "../check.h"

static int stop;
static volatile long spins;

static void *spin(void *argument)
{
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED))
		spins++;
	return argument;
}

int main(void)
{
	pthread_t threads[3];
	for (int index = 0; index < 3; index++)
		pthread_create(&threads[index], NULL, spin, NULL);
	for (int round = 0; round < 5; round++)
		sleep_ms(5);
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	for (int index = 0; index < 3; index++)
		pthread_join(threads[index], NULL);
	HOLDS(spins > 0);
	return 0;
}
