// calls: munmap
// flags: none
// what: unaligned addresses, a length of 0 and addresses that no program can have are EINVAL
#include "../check.h"

int main(void)
{
	char *area = map_anonymous(2 * PAGE);
	VALUE(munmap(area + 8, PAGE));
	VALUE(munmap(area, 0));
	VALUE(munmap((void *)-PAGE, PAGE));
	VALUE(munmap(area, 1ul << 63));
	area[0] = 'x';
	HOLDS(area[0] == 'x');
	return 0;
}
