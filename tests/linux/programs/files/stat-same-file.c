// calls: newfstatat fstat
// flags: none
// what: two names of a file have the same identity, two files do not; blocks and block size make sense
#include "../check.h"

int main(void)
{
	struct stat one, two, other;
	enter_own_folder();
	write_file("one", "text"), write_file("other", "text");
	MUST(link("one", "two"));
	MUST(stat("one", &one)), MUST(stat("two", &two)), MUST(stat("other", &other));
	HOLDS(one.st_ino == two.st_ino && one.st_dev == two.st_dev);
	HOLDS(one.st_ino != other.st_ino && one.st_dev == other.st_dev);
	HOLDS(one.st_nlink == 2 && other.st_nlink == 1);
	HOLDS(one.st_blksize >= 512 && one.st_blksize <= 1 << 22);
	int file = MUST(open("other", O_RDWR));
	MUST(ftruncate(file, 100 << 20));
	MUST(fstat(file, &other));
	HOLDS(other.st_size == 100 << 20);
	HOLDS(other.st_blocks * 512 < 1 << 20);
	return 0;
}
