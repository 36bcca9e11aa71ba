// calls: mremap
// flags: none
// what: growing in place works into free space, and fails with ENOMEM where another mapping is in the way
#include "../check.h"

int main(void)
{
	char *area = map_anonymous(4 * PAGE);
	OUTCOME(mremap(area, PAGE, 2 * PAGE, 0));
	MUST(munmap(area + PAGE, PAGE));
	area[0] = 'x';
	char *larger = mremap(area, PAGE, 2 * PAGE, 0);
	HOLDS(larger == area);
	HOLDS(area[0] == 'x' && area[PAGE] == 0);
	OUTCOME(mremap(area, 2 * PAGE, 3 * PAGE, 0));
	return 0;
}
