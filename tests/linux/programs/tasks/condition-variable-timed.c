// calls: futex clock_gettime
// flags: FUTEX_WAIT
// what: a timed wait for a condition that nobody signals ends with ETIMEDOUT, on either clock
#include "../check.h"

static void wait_on(clockid_t clock, long milliseconds)
{
	pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
	pthread_condattr_t attributes;
	pthread_cond_t condition;
	struct timespec until;
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, clock);
	pthread_cond_init(&condition, &attributes);
	long start = now_ms();
	clock_gettime(clock, &until);
	until.tv_nsec += milliseconds * 1000000;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	pthread_mutex_lock(&mutex);
	ANSWER(pthread_cond_timedwait(&condition, &mutex, &until));
	HOLDS(now_ms() - start >= milliseconds - 1);
	pthread_mutex_unlock(&mutex);
}

int main(void)
{
	wait_on(CLOCK_REALTIME, 20);
	wait_on(CLOCK_MONOTONIC, 20);
	wait_on(CLOCK_MONOTONIC, 0);
	return 0;
}
