// calls: set_robust_list futex exit
// flags: FUTEX_OWNER_DIED
// what: the next owner of a robust mutex learns with EOWNERDEAD that a thread ended while it held it
#include "../check.h"

static pthread_mutex_t mutex;

static void *end_holding(void *argument)
{
	pthread_mutex_lock(&mutex);
	return argument;
}

int main(void)
{
	pthread_mutexattr_t attributes;
	pthread_t thread;
	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
	pthread_mutex_init(&mutex, &attributes);
	pthread_create(&thread, NULL, end_holding, NULL);
	pthread_join(thread, NULL);
	ANSWER(pthread_mutex_lock(&mutex));
	ANSWER(pthread_mutex_consistent(&mutex));
	ANSWER(pthread_mutex_unlock(&mutex));
	ANSWER(pthread_mutex_lock(&mutex));
	ANSWER(pthread_mutex_unlock(&mutex));
	return 0;
}
