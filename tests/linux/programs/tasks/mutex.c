// calls: futex
// flags: FUTEX_WAIT FUTEX_WAKE
// what: a mutex keeps increments of many threads apart; trylock of a held one is EBUSY
#include "../check.h"

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static long counter;

static void *count(void *argument)
{
	for (int round = 0; round < 5000; round++) {
		pthread_mutex_lock(&mutex);
		counter++;
		pthread_mutex_unlock(&mutex);
	}
	return argument;
}

int main(void)
{
	pthread_t threads[4];
	for (int index = 0; index < 4; index++)
		pthread_create(&threads[index], NULL, count, NULL);
	for (int index = 0; index < 4; index++)
		pthread_join(threads[index], NULL);
	VALUE(counter);
	pthread_mutex_lock(&mutex);
	ANSWER(pthread_mutex_trylock(&mutex));
	return 0;
}
