// calls: set_robust_list futex
// flags: FUTEX_OWNER_DIED
// what: a robust mutex that is unlocked without being made consistent is ENOTRECOVERABLE; a waiter is woken
#include "../check.h"

static pthread_mutex_t mutex;
static pthread_barrier_t barrier;

static void *end_holding(void *argument)
{
	pthread_mutex_lock(&mutex);
	pthread_barrier_wait(&barrier);
	sleep_ms(20); /* so that main most likely waits already; its answer is the same if not */
	return argument;
}

int main(void)
{
	pthread_mutexattr_t attributes;
	pthread_t thread;
	pthread_barrier_init(&barrier, NULL, 2);
	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
	pthread_mutex_init(&mutex, &attributes);
	pthread_create(&thread, NULL, end_holding, NULL);
	pthread_barrier_wait(&barrier);
	ANSWER(pthread_mutex_lock(&mutex));
	ANSWER(pthread_mutex_unlock(&mutex));
	ANSWER(pthread_mutex_lock(&mutex));
	pthread_join(thread, NULL);
	return 0;
}
