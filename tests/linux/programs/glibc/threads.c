// calls: clone3 futex set_robust_list rseq
// flags: CLONE_VM CLONE_THREAD
// what: threads of the GNU C library: mutexes, conditions, thread-local variables, results
#include "../check.h"

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static __thread int own = 5;
static int turn, sum;

static void *take_turn(void *argument)
{
	int index = (int)(size_t)argument;
	pthread_mutex_lock(&mutex);
	while (turn != index)
		pthread_cond_wait(&changed, &mutex);
	own += index;
	sum += own;
	turn++;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&mutex);
	return (void *)(size_t)own;
}

int main(void)
{
	pthread_t threads[16];
	size_t results = 0;
	for (size_t index = 0; index < 16; index++)
		pthread_create(&threads[15 - index], NULL, take_turn, (void *)(15 - index));
	for (int index = 0; index < 16; index++) {
		void *result;
		pthread_join(threads[index], &result);
		results += (size_t)result;
	}
	VALUE(sum);
	VALUE(results);
	VALUE(own);
	return 0;
}
