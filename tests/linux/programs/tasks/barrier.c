// calls: futex
// flags: FUTEX_WAIT FUTEX_WAKE
// what: no thread passes a barrier before all have come, and exactly one is told that it was the last
#include "../check.h"

static pthread_barrier_t barrier;
static int arrived, serial, early;

static void *come(void *argument)
{
	for (int round = 1; round <= 50; round++) {
		__atomic_add_fetch(&arrived, 1, __ATOMIC_SEQ_CST);
		if (pthread_barrier_wait(&barrier) == PTHREAD_BARRIER_SERIAL_THREAD)
			__atomic_add_fetch(&serial, 1, __ATOMIC_SEQ_CST);
		if (__atomic_load_n(&arrived, __ATOMIC_SEQ_CST) < round * 4)
			__atomic_add_fetch(&early, 1, __ATOMIC_SEQ_CST);
		pthread_barrier_wait(&barrier);
	}
	return argument;
}

int main(void)
{
	pthread_t threads[4];
	pthread_barrier_init(&barrier, NULL, 4);
	for (int index = 0; index < 4; index++)
		pthread_create(&threads[index], NULL, come, NULL);
	for (int index = 0; index < 4; index++)
		pthread_join(threads[index], NULL);
	VALUE(arrived);
	VALUE(serial);
	VALUE(early);
	return 0;
}
