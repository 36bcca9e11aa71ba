// calls: futex
// flags: none
// what: readers share a lock and keep writers out; a writer keeps all out
#include "../check.h"

static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;
static long shared[2];
static int torn;

static void *read_or_write(void *argument)
{
	for (int round = 0; round < 1000; round++) {
		if (argument) {
			pthread_rwlock_wrlock(&lock);
			shared[0]++, shared[1]++;
		} else {
			pthread_rwlock_rdlock(&lock);
			if (shared[0] != shared[1])
				__atomic_store_n(&torn, 1, __ATOMIC_SEQ_CST);
		}
		pthread_rwlock_unlock(&lock);
	}
	return NULL;
}

int main(void)
{
	pthread_t threads[4];
	ANSWER(pthread_rwlock_rdlock(&lock));
	ANSWER(pthread_rwlock_tryrdlock(&lock));
	ANSWER(pthread_rwlock_trywrlock(&lock));
	pthread_rwlock_unlock(&lock);
	pthread_rwlock_unlock(&lock);
	for (size_t index = 0; index < 4; index++)
		pthread_create(&threads[index], NULL, read_or_write, (void *)(index % 2));
	for (int index = 0; index < 4; index++)
		pthread_join(threads[index], NULL);
	VALUE(shared[0]);
	VALUE(torn);
	return 0;
}
