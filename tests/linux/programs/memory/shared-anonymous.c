// calls: mmap mremap
// flags: MAP_SHARED MAP_ANONYMOUS
// what: shared anonymous memory is zero and usable; an mremap of size 0 gives a second view of it
#include "../check.h"

int main(void)
{
	char *area = MUST(mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	HOLDS(area[0] == 0 && area[2 * PAGE - 1] == 0);
	strcpy(area + PAGE, "seen twice");
	char *second = mremap(area, 0, 2 * PAGE, MREMAP_MAYMOVE);
	HOLDS(second != MAP_FAILED && second != area);
	if (second != MAP_FAILED) {
		printf("second view: %s\n", second + PAGE);
		second[PAGE] = 'S';
	}
	printf("first view: %s\n", area + PAGE);
	VALUE(munmap(area, 2 * PAGE));
	return 0;
}
