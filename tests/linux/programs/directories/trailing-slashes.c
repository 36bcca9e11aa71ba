// calls: openat newfstatat mkdir unlink
// flags: O_CREAT
// what: a slash at the end demands a folder, and follows a link to one
#include "../check.h"

int main(void)
{
	struct stat found;
	enter_own_folder();
	MUST(mkdir("folder", 0755));
	write_file("data", "text");
	MUST(symlink("folder", "to-folder")), MUST(symlink("data", "to-data"));
	OUTCOME(open("folder/", O_RDONLY));
	OUTCOME(open("data/", O_RDONLY));
	OUTCOME(open("new/", O_WRONLY | O_CREAT, 0644));
	OUTCOME(open("data/", O_WRONLY | O_CREAT, 0644));
	VALUE(lstat("to-folder", &found));
	HOLDS(S_ISLNK(found.st_mode));
	VALUE(lstat("to-folder/", &found));
	HOLDS(S_ISDIR(found.st_mode));
	VALUE(lstat("to-data/", &found));
	VALUE(symlink("x", "new/"));
	VALUE(link("data", "new/"));
	VALUE(readlink("to-folder/", (char *)&found, 10));
	return 0;
}
