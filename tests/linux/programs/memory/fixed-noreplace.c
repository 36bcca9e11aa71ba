// calls: mmap
// flags: MAP_FIXED_NOREPLACE
// what: MAP_FIXED_NOREPLACE fails with EEXIST over a mapping, and gives exactly the address where it is free
#include "../check.h"

int main(void)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
	char *area = map_anonymous(4 * PAGE);
	area[0] = 'x';
	OUTCOME(mmap(area, PAGE, PROT_READ, flags, -1, 0));
	OUTCOME(mmap(area + 3 * PAGE, 8 * PAGE, PROT_READ, flags, -1, 0));
	HOLDS(area[0] == 'x');
	MUST(munmap(area + PAGE, PAGE));
	char *again = mmap(area + PAGE, PAGE, PROT_READ, flags, -1, 0);
	HOLDS(again == area + PAGE);
	return 0;
}
