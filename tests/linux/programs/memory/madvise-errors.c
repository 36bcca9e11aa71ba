// calls: madvise
// flags: MADV_DONTNEED
// what: unaligned addresses and unknown advice are EINVAL, holes ENOMEM, nothing at all is fine
#include "../check.h"

int main(void)
{
	char *area = map_anonymous(3 * PAGE);
	area[2 * PAGE] = 'x';
	VALUE(madvise(area + 1, PAGE, MADV_DONTNEED));
	VALUE(madvise(area, PAGE, 1000));
	VALUE(madvise(area, 0, MADV_DONTNEED));
	MUST(munmap(area + PAGE, PAGE));
	VALUE(madvise(area, 3 * PAGE, MADV_DONTNEED));
	HOLDS(area[2 * PAGE] == 0);
	VALUE(madvise(area + PAGE, PAGE, MADV_NORMAL));
	return 0;
}
