// calls: mremap mincore
// flags: none
// what: a mapping that shrinks stays where it is, and its end is no longer mapped
#include "../check.h"

int main(void)
{
	unsigned char resident[4];
	char *area = map_anonymous(4 * PAGE);
	memset(area, 'x', 4 * PAGE);
	char *smaller = mremap(area, 4 * PAGE, 2 * PAGE, 0);
	HOLDS(smaller == area);
	HOLDS(area[2 * PAGE - 1] == 'x');
	VALUE(mincore(area, 2 * PAGE, resident));
	VALUE(mincore(area + 2 * PAGE, PAGE, resident));
	HOLDS(mremap(area, 2 * PAGE, 2 * PAGE, 0) == area);
	return 0;
}
