// calls: futex
// flags: none
// what: a recursive mutex counts, an error-checking one reports deadlock and foreign unlocking
#include "../check.h"

int main(void)
{
	pthread_mutexattr_t attributes;
	pthread_mutex_t recursive, checking;
	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE);
	pthread_mutex_init(&recursive, &attributes);
	pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ERRORCHECK);
	pthread_mutex_init(&checking, &attributes);
	ANSWER(pthread_mutex_lock(&recursive));
	ANSWER(pthread_mutex_lock(&recursive));
	ANSWER(pthread_mutex_unlock(&recursive));
	ANSWER(pthread_mutex_unlock(&recursive));
	ANSWER(pthread_mutex_unlock(&recursive));
	ANSWER(pthread_mutex_lock(&checking));
	ANSWER(pthread_mutex_lock(&checking));
	ANSWER(pthread_mutex_unlock(&checking));
	ANSWER(pthread_mutex_unlock(&checking));
	return 0;
}
