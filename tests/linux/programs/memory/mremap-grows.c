// calls: mremap
// flags: MREMAP_MAYMOVE
// what: a mapping that grows keeps what it held and is zero behind it
#include "../check.h"

int main(void)
{
	char *area = map_anonymous(2 * PAGE);
	area[0] = 'a', area[2 * PAGE - 1] = 'z';
	area = mremap(area, 2 * PAGE, 4096 * PAGE, MREMAP_MAYMOVE);
	HOLDS(area != MAP_FAILED);
	HOLDS(area[0] == 'a' && area[2 * PAGE - 1] == 'z');
	HOLDS(area[2 * PAGE] == 0 && area[4096 * PAGE - 1] == 0);
	area[4096 * PAGE - 1] = 1;
	VALUE(munmap(area, 4096 * PAGE));
	return 0;
}
