// calls: clone futex mmap munmap
// flags: CLONE_VM CLONE_THREAD
// what: threads share memory, return values to pthread_join, and can be made again and again
#include "../check.h"

static int sum;

static void *add(void *argument)
{
	__atomic_add_fetch(&sum, (int)(size_t)argument, __ATOMIC_SEQ_CST);
	return (char *)argument + 1;
}

int main(void)
{
	size_t returned = 0;
	for (int round = 0; round < 10; round++) {
		pthread_t threads[8];
		void *value;
		for (size_t index = 0; index < 8; index++)
			pthread_create(&threads[index], NULL, add, (void *)index);
		for (size_t index = 0; index < 8; index++) {
			pthread_join(threads[index], &value);
			returned += (size_t)value;
		}
	}
	VALUE(sum);
	VALUE(returned);
	return 0;
}
