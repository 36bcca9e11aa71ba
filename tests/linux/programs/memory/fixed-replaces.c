// calls: mmap
// flags: MAP_FIXED
// what: a fixed mapping replaces the pages it covers, and no other
#include "../check.h"

int main(void)
{
	char *area = map_anonymous(4 * PAGE);
	memset(area, 'x', 4 * PAGE);
	char *fixed = mmap(area + PAGE, 2 * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	HOLDS(fixed == area + PAGE);
	HOLDS(area[PAGE - 1] == 'x');
	HOLDS(area[PAGE] == 0 && area[3 * PAGE - 1] == 0);
	HOLDS(area[3 * PAGE] == 'x');
	VALUE(munmap(area, 4 * PAGE));
	return 0;
}
