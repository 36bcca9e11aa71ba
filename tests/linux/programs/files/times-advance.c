// calls: write read chmod fstat
// flags: none
// what: writing changes the modification time, chmod only the change time
#include "../check.h"

static bool later(struct timespec one, struct timespec other)
{
	return one.tv_sec > other.tv_sec || (one.tv_sec == other.tv_sec && one.tv_nsec > other.tv_nsec);
}

int main(void)
{
	struct stat before, written, changed;
	enter_own_folder();
	int file = MUST(open("data", O_RDWR | O_CREAT, 0644));
	MUST(fstat(file, &before));
	sleep_ms(30);
	MUST(write(file, "x", 1));
	MUST(fstat(file, &written));
	HOLDS(later(written.st_mtim, before.st_mtim) && later(written.st_ctim, before.st_ctim));
	sleep_ms(30);
	MUST(fchmod(file, 0600));
	MUST(fstat(file, &changed));
	HOLDS(!later(changed.st_mtim, written.st_mtim) && later(changed.st_ctim, written.st_ctim));
	return 0;
}
