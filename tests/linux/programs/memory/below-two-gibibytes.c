// calls: mmap
// flags: MAP_32BIT
// what: MAP_32BIT gives an address below 2 GiB
#include "../check.h"

int main(void)
{
	char *area = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	HOLDS(area != MAP_FAILED);
	HOLDS((uintptr_t)area < 1ul << 31);
	area[16 * PAGE - 1] = 'x';
	HOLDS(area[16 * PAGE - 1] == 'x');
	return 0;
}
