// calls: mmap mprotect madvise munmap
// flags: PROT_NONE MAP_NORESERVE
// what: 1 TiB of address space can be reserved and a few of its pages opened, as Go and the JVM do
#include "../check.h"

int main(void)
{
	size_t length = 1ul << 40;
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
	char *area = mmap(NULL, length, PROT_NONE, flags, -1, 0);
	HOLDS(area != MAP_FAILED);
	if (area == MAP_FAILED)
		return 1;
	char *part = area + length / 2;
	VALUE(mprotect(part, 4 * PAGE, PROT_READ | PROT_WRITE));
	part[0] = 1, part[4 * PAGE - 1] = 2;
	HOLDS(part[0] + part[4 * PAGE - 1] == 3);
	char *last = mmap(area + length - PAGE, PAGE, PROT_READ | PROT_WRITE, flags | MAP_FIXED, -1, 0);
	HOLDS(last == area + length - PAGE);
	last[PAGE - 1] = 1;
	VALUE(madvise(part, 4 * PAGE, MADV_DONTNEED));
	HOLDS(part[0] == 0);
	VALUE(mprotect(part, 4 * PAGE, PROT_NONE));
	VALUE(munmap(area, length));
	return 0;
}
