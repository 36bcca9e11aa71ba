// calls: mprotect write
// flags: PROT_READ PROT_NONE
// what: protecting the middle of an area leaves its two sides as they were, and joining it again works
#include "../check.h"

int main(void)
{
	int channel[2];
	MUST(pipe(channel));
	char *area = map_anonymous(5 * PAGE);
	memset(area, 'x', 5 * PAGE);
	VALUE(mprotect(area + PAGE, 3 * PAGE, PROT_READ));
	VALUE(mprotect(area + 2 * PAGE, PAGE, PROT_NONE));
	area[0] = area[4 * PAGE] = 'y';
	VALUE(write(channel[1], area + PAGE, 1));
	VALUE(write(channel[1], area + 2 * PAGE, 1));
	VALUE(read(channel[0], area + 3 * PAGE, 1));
	VALUE(mprotect(area, 5 * PAGE, PROT_READ | PROT_WRITE));
	HOLDS(area[2 * PAGE] == 'x');
	area[2 * PAGE] = 'z';
	HOLDS(area[PAGE] == 'x' && area[2 * PAGE] == 'z');
	return 0;
}
