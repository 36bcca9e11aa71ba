// calls: mmap munmap clone
// flags: none
// what: threads that map and unmap at the same time never see each other's memory
#include "../check.h"

enum { THREADS = 4, ROUNDS = 100 };
static int wrong;

static void *map_and_unmap(void *argument)
{
	char own = (char)(size_t)argument;
	for (int round = 0; round < ROUNDS; round++) {
		size_t length = (1 + round % 7) * PAGE;
		char *area = map_anonymous(length);
		for (size_t index = 0; index < length; index += PAGE)
			if (area[index] != 0)
				__atomic_add_fetch(&wrong, 1, __ATOMIC_SEQ_CST);
		memset(area, own, length);
		if (area[length - 1] != own)
			__atomic_add_fetch(&wrong, 1, __ATOMIC_SEQ_CST);
		munmap(area, length);
	}
	return NULL;
}

int main(void)
{
	pthread_t threads[THREADS];
	for (size_t index = 0; index < THREADS; index++)
		pthread_create(&threads[index], NULL, map_and_unmap, (void *)(index + 1));
	for (size_t index = 0; index < THREADS; index++)
		pthread_join(threads[index], NULL);
	HOLDS(wrong == 0);
	return 0;
}
