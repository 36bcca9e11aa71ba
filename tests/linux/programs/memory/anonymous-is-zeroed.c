// calls: mmap munmap
// flags: MAP_PRIVATE MAP_ANONYMOUS
// what: anonymous memory is all zero, can be written to its last byte, and goes back
#include "../check.h"

int main(void)
{
	size_t length = 16 << 20;
	unsigned char *area = map_anonymous(length);
	size_t others = 0;
	for (size_t index = 0; index < length; index += 512)
		others += area[index] != 0;
	HOLDS(others == 0);
	HOLDS((uintptr_t)area % PAGE == 0);
	memset(area, 0xa5, length);
	HOLDS(area[0] == 0xa5 && area[length - 1] == 0xa5);
	VALUE(munmap(area, length));
	return 0;
}
