// calls: clock_gettime
// flags: CLOCK_MONOTONIC
// what: the monotonic clock never goes back, not between threads either, and advances
#include "../check.h"

static int64_t latest;
static int backwards;

static int64_t now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ll + now.tv_nsec;
}

static void *watch(void *argument)
{
	for (int round = 0; round < 20000; round++) {
		int64_t before = __atomic_load_n(&latest, __ATOMIC_SEQ_CST), now = now_ns();
		if (now < before)
			__atomic_store_n(&backwards, 1, __ATOMIC_SEQ_CST);
		if (now > before)
			__atomic_compare_exchange_n(&latest, &before, now, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
	}
	return argument;
}

int main(void)
{
	pthread_t threads[2];
	int64_t start = now_ns();
	for (int index = 0; index < 2; index++)
		pthread_create(&threads[index], NULL, watch, NULL);
	for (int index = 0; index < 2; index++)
		pthread_join(threads[index], NULL);
	VALUE(backwards);
	HOLDS(now_ns() > start);
	return 0;
}
