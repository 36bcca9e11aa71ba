// calls: chmod fchmod fchmodat umask
// flags: none
// what: permissions are set by path and descriptor and cut by the umask when a file is made
#include "../check.h"

static void show_mode(const char *path)
{
	struct stat found;
	MUST(stat(path, &found));
	printf("%s: %o\n", path, found.st_mode & 07777);
}

int main(void)
{
	enter_own_folder();
	umask(027);
	int file = MUST(open("data", O_RDWR | O_CREAT, 0666));
	MUST(mkdir("folder", 0777));
	show_mode("data"), show_mode("folder");
	VALUE(chmod("data", 04755));
	show_mode("data");
	VALUE(fchmod(file, 0));
	show_mode("data");
	VALUE(fchmodat(AT_FDCWD, "folder", 01700, 0));
	show_mode("folder");
	MUST(symlink("data", "link"));
	VALUE(chmod("link", 0600));
	show_mode("data");
	VALUE(chmod("missing", 0600));
	VALUE(fchmod(1000, 0600));
	HOLDS(umask(0777) == 027);
	HOLDS(umask(022) == 0777);
	return 0;
}
