// calls: link linkat
// flags: AT_SYMLINK_FOLLOW
// what: names of one file share content and count; folders, existing names and missing files are errors
#include "../check.h"

int main(void)
{
	struct stat found;
	enter_own_folder();
	write_file("data", "text");
	MUST(symlink("data", "symbolic"));
	VALUE(link("data", "name"));
	write_file("name", "changed");
	show_file("data");
	VALUE(link("data", "name"));
	VALUE(link("missing", "other"));
	VALUE(link(".", "folder"));
	VALUE(link("data", "missing/name"));
	VALUE(linkat(AT_FDCWD, "symbolic", AT_FDCWD, "link to link", 0));
	MUST(lstat("link to link", &found));
	HOLDS(S_ISLNK(found.st_mode));
	VALUE(linkat(AT_FDCWD, "symbolic", AT_FDCWD, "third", AT_SYMLINK_FOLLOW));
	MUST(stat("data", &found));
	VALUE(found.st_nlink);
	VALUE(linkat(AT_FDCWD, "data", AT_FDCWD, "fourth", 0x8000));
	return 0;
}
