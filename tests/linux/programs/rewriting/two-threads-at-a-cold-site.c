// calls: umask sched_yield
// flags: none
// what: threads that reach the same fresh call site at the same time all make the call they ask for
#include "../check.h"

static volatile int started;
static int wrong[4];

__attribute__((noinline)) static long call(long number)
{
	long result;
	__asm__ volatile("mov $24, %%eax\n\tsyscall" : "=a"(result) : "D"(number) : "rcx", "r11", "memory");
	return result;
}

static void *work(void *place)
{
	__sync_fetch_and_add(&started, 1);
	while (started < 4)
		sched_yield();
	for (int round = 0; round < 5000; round++)
		*(int *)place += call(round) != 0;
	return NULL;
}

int main(void)
{
	pthread_t threads[4];
	for (int index = 0; index < 4; index++)
		MUST(-pthread_create(&threads[index], NULL, work, &wrong[index]));
	for (int index = 0; index < 4; index++)
		pthread_join(threads[index], NULL);
	VALUE(wrong[0] + wrong[1] + wrong[2] + wrong[3]);
	return 0;
}
