// calls: futex
// flags: FUTEX_WAIT FUTEX_WAKE
// what: a semaphore counts, blocks at zero, is EAGAIN without waiting and ETIMEDOUT after its time
#include "../check.h"
#include <semaphore.h>

static sem_t items;

static void *post(void *argument)
{
	for (int round = 0; round < 100; round++)
		sem_post(&items);
	return argument;
}

int main(void)
{
	pthread_t thread;
	struct timespec past = { 1, 0 };
	int taken = 0;
	sem_init(&items, 0, 1);
	VALUE(sem_wait(&items));
	VALUE(sem_trywait(&items));
	VALUE(sem_timedwait(&items, &past));
	pthread_create(&thread, NULL, post, NULL);
	while (taken < 100 && sem_wait(&items) == 0)
		taken++;
	VALUE(taken);
	pthread_join(thread, NULL);
	VALUE(sem_trywait(&items));
	return 0;
}
