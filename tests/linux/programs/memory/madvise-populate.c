// calls: madvise mincore
// flags: MADV_POPULATE_READ MADV_POPULATE_WRITE
// what: populating makes pages resident, and fails with EFAULT or EINVAL where access is not allowed
#include "../check.h"
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23

int main(void)
{
	unsigned char resident[4];
	char *area = map_anonymous(4 * PAGE);
	VALUE(madvise(area, 4 * PAGE, MADV_POPULATE_WRITE));
	MUST(mincore(area, 4 * PAGE, resident));
	HOLDS(resident[0] & resident[1] & resident[2] & resident[3] & 1);
	HOLDS(area[0] == 0);
	VALUE(madvise(area, 4 * PAGE, MADV_POPULATE_READ));
	MUST(mprotect(area, PAGE, PROT_READ));
	VALUE(madvise(area, PAGE, MADV_POPULATE_WRITE));
	MUST(munmap(area + PAGE, PAGE));
	VALUE(madvise(area, 2 * PAGE, MADV_POPULATE_READ));
	return 0;
}
