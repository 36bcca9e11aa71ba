// calls: futex
// flags: FUTEX_WAIT FUTEX_WAKE FUTEX_REQUEUE
// what: two threads hand a token to and fro with condition variables
#include "../check.h"

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int token;

static void *answer(void *argument)
{
	pthread_mutex_lock(&mutex);
	for (int round = 0; round < 500; round++) {
		while (token % 2 == 0)
			pthread_cond_wait(&changed, &mutex);
		token++;
		pthread_cond_signal(&changed);
	}
	pthread_mutex_unlock(&mutex);
	return argument;
}

int main(void)
{
	pthread_t thread;
	pthread_create(&thread, NULL, answer, NULL);
	pthread_mutex_lock(&mutex);
	for (int round = 0; round < 500; round++) {
		token++;
		pthread_cond_signal(&changed);
		while (token % 2 == 1)
			pthread_cond_wait(&changed, &mutex);
	}
	pthread_mutex_unlock(&mutex);
	pthread_join(thread, NULL);
	VALUE(token);
	return 0;
}
