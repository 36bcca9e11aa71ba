// calls: brk mmap mremap munmap
// flags: none
// what: malloc, calloc, realloc and free of many sizes keep every byte
#include "../check.h"

int main(void)
{
	static unsigned char *blocks[256];
	size_t wrong = 0;
	for (int round = 0; round < 4; round++) {
		for (int index = 0; index < 256; index++) {
			size_t length = (size_t)(index * 37 + 1) << (index % 8);
			blocks[index] = realloc(blocks[index], length);
			memset(blocks[index], index, length);
		}
		for (int index = round % 2; index < 256; index += 2) {
			wrong += blocks[index][0] != index || blocks[index][index * 37ul >> 1] != index;
			free(blocks[index]);
			blocks[index] = NULL;
		}
	}
	HOLDS(wrong == 0);
	unsigned char *zeroed = calloc(1000, 1000);
	HOLDS(zeroed[0] == 0 && zeroed[999999] == 0);
	HOLDS((uintptr_t)aligned_alloc(4096, 8192) % 4096 == 0);
	HOLDS(malloc((size_t)-1 / 4) == NULL);
	return 0;
}
