// calls: chown fchown lchown fchownat
// flags: AT_SYMLINK_NOFOLLOW
// what: root changes owner and group, -1 leaves them; set-user-ID is lost; links have owners of their own
#include "../check.h"

static void show_owner(const char *path)
{
	struct stat found;
	MUST(lstat(path, &found));
	printf("%s: %d:%d %o\n", path, found.st_uid, found.st_gid, found.st_mode & 07777);
}

int main(void)
{
	enter_own_folder();
	write_file("data", "text");
	MUST(chmod("data", 04755));
	MUST(symlink("data", "link"));
	VALUE(chown("data", 12, 34));
	show_owner("data");
	VALUE(chown("data", -1, 56));
	show_owner("data");
	VALUE(lchown("link", 78, -1));
	show_owner("link"), show_owner("data");
	VALUE(fchownat(AT_FDCWD, "link", 90, 91, 0));
	show_owner("data");
	VALUE(fchown(MUST(open("data", O_RDONLY)), 0, 0));
	show_owner("data");
	VALUE(chown("missing", 0, 0));
	return 0;
}
