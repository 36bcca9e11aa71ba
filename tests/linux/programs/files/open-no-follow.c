// calls: openat readlinkat fstat
// flags: O_NOFOLLOW O_PATH
// what: O_NOFOLLOW refuses a link as the last name, not before; with O_PATH the link itself is opened
#include "../check.h"

int main(void)
{
	struct stat found;
	char target[32] = "";
	enter_own_folder();
	MUST(mkdir("folder", 0755));
	write_file("folder/data", "text");
	MUST(symlink("folder", "way"));
	MUST(symlink("folder/data", "link"));
	OUTCOME(open("link", O_RDONLY | O_NOFOLLOW));
	OUTCOME(open("way/data", O_RDONLY | O_NOFOLLOW));
	OUTCOME(open("way", O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
	int link = MUST(open("link", O_PATH | O_NOFOLLOW));
	MUST(fstat(link, &found));
	HOLDS(S_ISLNK(found.st_mode));
	VALUE(readlinkat(link, "", target, sizeof target));
	puts(target);
	return 0;
}
