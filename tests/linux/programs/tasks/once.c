// calls: futex
// flags: none
// what: an initialisation runs once however many threads ask for it, and all see its result
#include "../check.h"

static pthread_once_t once = PTHREAD_ONCE_INIT;
static int runs, ready, unready;

static void initialise(void)
{
	runs++;
	sleep_ms(10);
	ready = 1;
}

static void *need(void *argument)
{
	pthread_once(&once, initialise);
	if (!ready)
		__atomic_add_fetch(&unready, 1, __ATOMIC_SEQ_CST);
	return argument;
}

int main(void)
{
	pthread_t threads[4];
	for (int index = 0; index < 4; index++)
		pthread_create(&threads[index], NULL, need, NULL);
	for (int index = 0; index < 4; index++)
		pthread_join(threads[index], NULL);
	VALUE(runs);
	VALUE(unready);
	return 0;
}
