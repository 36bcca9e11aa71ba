// calls: brk mmap munmap mremap madvise
// flags: none
// what: the allocator of the GNU C library serves several threads, large and small blocks, and gives memory back
#include "../check.h"
#include <malloc.h>

static int wrong;

static void *allocate(void *argument)
{
	unsigned char own = (unsigned char)(size_t)argument, *blocks[100];
	for (int round = 0; round < 10; round++) {
		for (int index = 0; index < 100; index++) {
			size_t length = (size_t)1 << (index % 17);
			blocks[index] = malloc(length);
			memset(blocks[index], own, length);
		}
		for (int index = 0; index < 100; index++) {
			if (blocks[index][((size_t)1 << (index % 17)) - 1] != own)
				__atomic_add_fetch(&wrong, 1, __ATOMIC_SEQ_CST);
			free(blocks[index]);
		}
	}
	return NULL;
}

int main(void)
{
	pthread_t threads[4];
	for (size_t index = 0; index < 4; index++)
		pthread_create(&threads[index], NULL, allocate, (void *)(index + 1));
	for (int index = 0; index < 4; index++)
		pthread_join(threads[index], NULL);
	VALUE(wrong);
	char *large = malloc(64 << 20);
	large[0] = 'a', large[(64 << 20) - 1] = 'z';
	large = realloc(large, 128 << 20);
	HOLDS(large[0] == 'a' && large[(64 << 20) - 1] == 'z');
	free(large);
	HOLDS(malloc_trim(0) >= 0);
	return 0;
}
