// calls: clone exit futex sched_yield
// flags: CLONE_THREAD
// what: a thousand threads live at the same time, each with a stack and thread-local storage of its own
#include "../check.h"

static __thread int own;
static pthread_barrier_t barrier;
static long sum, wrong;

static void *work(void *argument)
{
	own = (int)(intptr_t)argument;
	pthread_barrier_wait(&barrier);
	for (int round = 0; round < 5; round++) {
		sched_yield();
		if (own != (int)(intptr_t)argument)
			__atomic_add_fetch(&wrong, 1, __ATOMIC_SEQ_CST);
	}
	__atomic_add_fetch(&sum, own, __ATOMIC_SEQ_CST);
	return argument;
}

int main(void)
{
	enum { THREADS = 1000 };
	static pthread_t threads[THREADS];
	pthread_attr_t attributes;
	int failed = 0;
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, 16 * PAGE);
	pthread_barrier_init(&barrier, NULL, THREADS + 1);
	for (int index = 0; index < THREADS; index++)
		failed += pthread_create(&threads[index], &attributes, work, (void *)(intptr_t)index) != 0;
	VALUE(failed);
	if (failed)
		return 1;
	pthread_barrier_wait(&barrier);
	for (int index = 0; index < THREADS; index++)
		pthread_join(threads[index], NULL);
	VALUE(sum);
	VALUE(wrong);
	return 0;
}
