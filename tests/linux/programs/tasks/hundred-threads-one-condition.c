// calls: futex clone
// flags: FUTEX_WAIT FUTEX_WAKE FUTEX_REQUEUE
// what: a hundred threads hand a token around under one mutex and one condition variable, and no wake is lost
#include "../check.h"

enum { THREADS = 100, ROUNDS = 40 };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t moved = PTHREAD_COND_INITIALIZER;
static int turn, steps;

static void *hand_on(void *argument)
{
	int own = (int)(intptr_t)argument;
	for (int round = 0; round < ROUNDS; round++) {
		pthread_mutex_lock(&mutex);
		while (turn != own)
			pthread_cond_wait(&moved, &mutex);
		turn = (turn + 1) % THREADS;
		steps++;
		pthread_cond_broadcast(&moved);
		pthread_mutex_unlock(&mutex);
	}
	return argument;
}

int main(void)
{
	static pthread_t threads[THREADS];
	pthread_attr_t attributes;
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, 16 * PAGE);
	for (int index = 0; index < THREADS; index++)
		if (pthread_create(&threads[index], &attributes, hand_on, (void *)(intptr_t)index) != 0)
			return EXIT_UNPREPARED;
	for (int index = 0; index < THREADS; index++)
		pthread_join(threads[index], NULL);
	VALUE(steps);
	VALUE(turn);
	return 0;
}
