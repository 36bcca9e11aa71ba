// calls: mremap
// flags: MREMAP_MAYMOVE
// what: unaligned or unmapped addresses, an empty result and unknown flags are errors
#include "../check.h"

int main(void)
{
	char *area = map_anonymous(2 * PAGE);
	OUTCOME(mremap(area + 1, PAGE, PAGE, 0));
	OUTCOME(mremap(area, PAGE, 0, 0));
	OUTCOME(mremap(area, PAGE, PAGE, 64));
	MUST(munmap(area + PAGE, PAGE));
	OUTCOME(mremap(area + PAGE, PAGE, 2 * PAGE, MREMAP_MAYMOVE));
	OUTCOME(mremap(area, 2 * PAGE, 3 * PAGE, MREMAP_MAYMOVE));
	return 0;
}
