// calls: openat linkat
// flags: O_TMPFILE AT_SYMLINK_FOLLOW
// what: O_TMPFILE makes a file without a name, which can be given one; O_EXCL forbids that
#include "../check.h"

int main(void)
{
	struct stat found;
	char path[64];
	enter_own_folder();
	int file = MUST(open(".", O_TMPFILE | O_RDWR, 0600));
	VALUE(write(file, "text", 4));
	MUST(fstat(file, &found));
	HOLDS(S_ISREG(found.st_mode) && found.st_nlink == 0);
	snprintf(path, sizeof path, "/proc/self/fd/%d", file);
	VALUE(linkat(AT_FDCWD, path, AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
	show_file("named");
	file = MUST(open(".", O_TMPFILE | O_RDWR | O_EXCL, 0600));
	snprintf(path, sizeof path, "/proc/self/fd/%d", file);
	VALUE(linkat(AT_FDCWD, path, AT_FDCWD, "other", AT_SYMLINK_FOLLOW));
	OUTCOME(open(".", O_TMPFILE | O_RDONLY, 0600));
	OUTCOME(open("named", O_TMPFILE | O_RDWR, 0600));
	return 0;
}
