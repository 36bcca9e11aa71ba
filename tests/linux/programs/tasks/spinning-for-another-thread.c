// calls: clone
// flags: none
// what: main, which waits by reading memory again and again, sees what another thread writes
#include "../check.h"

static int ball;

static void *play(void *argument)
{
	for (int round = 0; round < 20; round++) {
		while (__atomic_load_n(&ball, __ATOMIC_SEQ_CST) != 1)
			;
		__atomic_store_n(&ball, 0, __ATOMIC_SEQ_CST);
	}
	return argument;
}

int main(void)
{
	pthread_t thread;
	pthread_create(&thread, NULL, play, NULL);
	for (int round = 0; round < 20; round++) {
		__atomic_store_n(&ball, 1, __ATOMIC_SEQ_CST);
		while (__atomic_load_n(&ball, __ATOMIC_SEQ_CST) != 0)
			;
	}
	pthread_join(thread, NULL);
	VALUE(ball);
	return 0;
}
