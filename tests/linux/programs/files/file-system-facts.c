// calls: statfs fstatfs
// flags: none
// what: block size, free space and longest name of the file system make sense
#include "../check.h"
#include <sys/statfs.h>

int main(void)
{
	struct statfs found;
	enter_own_folder();
	VALUE(statfs(".", &found));
	HOLDS(found.f_bsize >= 512 && found.f_namelen == 255);
	HOLDS(found.f_blocks >= found.f_bfree && found.f_bfree >= found.f_bavail);
	VALUE(fstatfs(MUST(open(".", O_RDONLY)), &found));
	VALUE(statfs("missing", &found));
	VALUE(fstatfs(1000, &found));
	VALUE(statfs("/proc", &found));
	HOLDS(found.f_type == 0x9fa0);
	return 0;
}
