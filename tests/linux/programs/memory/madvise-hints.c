// calls: madvise
// flags: MADV_NORMAL MADV_RANDOM MADV_SEQUENTIAL MADV_WILLNEED MADV_HUGEPAGE MADV_DONTFORK MADV_DONTDUMP
// what: hints are accepted and change no content
#include "../check.h"

int main(void)
{
	char *area = map_anonymous(1024 * PAGE);
	memset(area, 'x', 1024 * PAGE);
	VALUE(madvise(area, 1024 * PAGE, MADV_NORMAL));
	VALUE(madvise(area, 1024 * PAGE, MADV_RANDOM));
	VALUE(madvise(area, 1024 * PAGE, MADV_SEQUENTIAL));
	VALUE(madvise(area, 1024 * PAGE, MADV_WILLNEED));
	VALUE(madvise(area, 1024 * PAGE, MADV_HUGEPAGE));
	VALUE(madvise(area, 1024 * PAGE, MADV_NOHUGEPAGE));
	VALUE(madvise(area, 1024 * PAGE, MADV_DONTFORK));
	VALUE(madvise(area, 1024 * PAGE, MADV_DOFORK));
	VALUE(madvise(area, 1024 * PAGE, MADV_DONTDUMP));
	VALUE(madvise(area, 1024 * PAGE, MADV_DODUMP));
	HOLDS(area[0] == 'x' && area[1024 * PAGE - 1] == 'x');
	return 0;
}
