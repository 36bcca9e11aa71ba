// calls: sched_yield clone
// flags: none
// what: each thread keeps its own vector and floating-point registers while others run
#include "../check.h"
#include <math.h>

static int wrong;

static void *compute(void *argument)
{
	double start = (double)(size_t)argument, sum = 0;
	for (int round = 1; round <= 2000; round++) {
		sum += sqrt(start * round);
		if (round % 20 == 0)
			sched_yield();
	}
	double again = 0;
	for (int round = 1; round <= 2000; round++)
		again += sqrt(start * round);
	if (sum != again)
		__atomic_add_fetch(&wrong, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

int main(void)
{
	pthread_t threads[6];
	for (size_t index = 0; index < 6; index++)
		pthread_create(&threads[index], NULL, compute, (void *)(index + 1));
	for (int index = 0; index < 6; index++)
		pthread_join(threads[index], NULL);
	VALUE(wrong);
	return 0;
}
