// calls: futex
// flags: FUTEX_REQUEUE
// what: a broadcast wakes all waiters
#include "../check.h"

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t waiting_changed = PTHREAD_COND_INITIALIZER, opened = PTHREAD_COND_INITIALIZER;
static int waiting, passed, open_now;

static void *pass(void *argument)
{
	pthread_mutex_lock(&mutex);
	waiting++;
	pthread_cond_signal(&waiting_changed);
	while (!open_now)
		pthread_cond_wait(&opened, &mutex);
	passed++;
	pthread_mutex_unlock(&mutex);
	return argument;
}

int main(void)
{
	pthread_t threads[8];
	for (int index = 0; index < 8; index++)
		pthread_create(&threads[index], NULL, pass, NULL);
	pthread_mutex_lock(&mutex);
	while (waiting < 8)
		pthread_cond_wait(&waiting_changed, &mutex);
	open_now = 1;
	pthread_cond_broadcast(&opened);
	pthread_mutex_unlock(&mutex);
	for (int index = 0; index < 8; index++)
		pthread_join(threads[index], NULL);
	VALUE(passed);
	return 0;
}
