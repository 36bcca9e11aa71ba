// calls: mmap
// flags: MAP_PRIVATE MAP_ANONYMOUS
// what: an address without MAP_FIXED is a wish: granted where free, otherwise another place is chosen
#include "../check.h"

int main(void)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS;
	char *area = map_anonymous(3 * PAGE);
	area[PAGE] = 'x';
	char *other = mmap(area + PAGE, PAGE, PROT_READ, flags, -1, 0);
	HOLDS(other != MAP_FAILED && other != area + PAGE);
	HOLDS(area[PAGE] == 'x');
	MUST(munmap(area + PAGE, PAGE));
	char *granted = mmap(area + PAGE, PAGE, PROT_READ, flags, -1, 0);
	HOLDS(granted == area + PAGE);
	return 0;
}
