// calls: statx
// flags: STATX_BASIC_STATS AT_EMPTY_PATH STATX_BTIME
// what: statx tells the same as stat, by path and by descriptor; reserved bits are EINVAL
#include "../check.h"

int main(void)
{
	uint32_t found[64];
	struct stat old;
	enter_own_folder();
	write_file("data", "0123456789");
	int file = MUST(open("data", O_RDONLY));
	MUST(fstat(file, &old));
	VALUE(syscall(SYS_statx, AT_FDCWD, "data", 0, 0x7ff, found));
	HOLDS((found[0] & 0x7ff) == 0x7ff);                     /* stx_mask: the basic fields */
	HOLDS(found[4] == 1);                                   /* stx_nlink */
	HOLDS((found[7] & 0xffff) == old.st_mode);              /* stx_mode */
	HOLDS(found[8] == (uint32_t)old.st_ino && found[10] == 10); /* stx_ino, stx_size */
	VALUE(syscall(SYS_statx, file, "", AT_EMPTY_PATH, 0x7ff, found));
	HOLDS(found[10] == 10);
	VALUE(syscall(SYS_statx, file, "", 0, 0x7ff, found));
	VALUE(syscall(SYS_statx, AT_FDCWD, "missing", 0, 0x7ff, found));
	VALUE(syscall(SYS_statx, AT_FDCWD, "data", 0, 0x80000000u, found));
	VALUE(syscall(SYS_statx, AT_FDCWD, "data", 0x6000, 0x7ff, found));
	VALUE(syscall(SYS_statx, AT_FDCWD, "data", 0, 0x7ff, NULL));
	return 0;
}
