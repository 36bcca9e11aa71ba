// calls: madvise mprotect
// flags: MADV_DONTNEED PROT_READ PROT_NONE
// what: MADV_DONTNEED empties pages that are read-only or inaccessible as well
#include "../check.h"

int main(void)
{
	char *area = map_anonymous(2 * PAGE);
	area[0] = area[PAGE] = 'x';
	MUST(mprotect(area, PAGE, PROT_READ));
	MUST(mprotect(area + PAGE, PAGE, PROT_NONE));
	VALUE(madvise(area, 2 * PAGE, MADV_DONTNEED));
	HOLDS(area[0] == 0);
	MUST(mprotect(area + PAGE, PAGE, PROT_READ));
	HOLDS(area[PAGE] == 0);
	return 0;
}
