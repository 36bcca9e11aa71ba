// calls: newfstatat fstat lstat
// flags: AT_SYMLINK_NOFOLLOW AT_EMPTY_PATH
// what: type, permissions, size, links and owner of files, folders and links are told
#include "../check.h"

static void show_stat(const char *path, int flags)
{
	struct stat found;
	if (fstatat(AT_FDCWD, path, &found, flags) == -1) {
		printf("%s: %s\n", path, error_name(errno));
		return;
	}
	const char *kind = S_ISREG(found.st_mode) ? "file" : S_ISDIR(found.st_mode) ? "folder"
			: S_ISLNK(found.st_mode) ? "link" : "other";
	printf("%s: %s %o, links %d, own: %d", path, kind, found.st_mode & 07777, (int)found.st_nlink,
			found.st_uid == getuid());
	printf(S_ISDIR(found.st_mode) ? "\n" : ", size %ld\n", (long)found.st_size);
}

int main(void)
{
	enter_own_folder();
	write_file("data", "0123456789");
	MUST(chmod("data", 0640));
	MUST(mkdir("folder", 01777));
	MUST(symlink("data", "link"));
	MUST(link("data", "second name"));
	show_stat("data", 0);
	show_stat("folder", 0);
	show_stat("link", 0);
	show_stat("link", AT_SYMLINK_NOFOLLOW);
	show_stat("missing", 0);
	show_stat("", 0);
	show_stat("data/", 0);
	show_stat("data", 0x40000000);
	return 0;
}
