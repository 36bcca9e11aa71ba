// calls: futex clock_gettime
// flags: FUTEX_WAIT
// what: a timed lock of a held mutex ends with ETIMEDOUT, not before its time
#include "../check.h"

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static void *try(void *argument)
{
	struct timespec until;
	long start = now_ms();
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += 30000000;
	if (until.tv_nsec >= 1000000000)
		until.tv_sec++, until.tv_nsec -= 1000000000;
	ANSWER(pthread_mutex_timedlock(&mutex, &until));
	HOLDS(now_ms() - start >= 29);
	return argument;
}

int main(void)
{
	pthread_t thread;
	pthread_mutex_lock(&mutex);
	pthread_create(&thread, NULL, try, NULL);
	pthread_join(thread, NULL);
	return 0;
}
