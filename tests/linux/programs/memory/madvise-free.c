// calls: madvise
// flags: MADV_FREE
// what: pages after MADV_FREE hold the old content or zero, and keep what is written next
#include "../check.h"

int main(void)
{
	char *area = map_anonymous(4 * PAGE);
	memset(area, 'x', 4 * PAGE);
	VALUE(madvise(area, 4 * PAGE, MADV_FREE));
	HOLDS(area[0] == 'x' || area[0] == 0);
	memset(area, 'y', 4 * PAGE);
	HOLDS(area[0] == 'y' && area[4 * PAGE - 1] == 'y');
	char *shared = MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	VALUE(madvise(shared, PAGE, MADV_FREE));
	return 0;
}
