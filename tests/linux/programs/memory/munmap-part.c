// calls: munmap mincore
// flags: none
// what: a hole in an area leaves both sides intact; unmapping across the hole succeeds
#include "../check.h"

int main(void)
{
	unsigned char resident[5];
	char *area = map_anonymous(5 * PAGE);
	memset(area, 'x', 5 * PAGE);
	VALUE(munmap(area + 2 * PAGE, 1));
	HOLDS(area[0] == 'x' && area[2 * PAGE - 1] == 'x' && area[3 * PAGE] == 'x');
	VALUE(mincore(area, 2 * PAGE, resident));
	VALUE(mincore(area + 2 * PAGE, PAGE, resident));
	VALUE(mincore(area, 5 * PAGE, resident));
	VALUE(munmap(area, 5 * PAGE));
	VALUE(munmap(area, 5 * PAGE));
	return 0;
}
