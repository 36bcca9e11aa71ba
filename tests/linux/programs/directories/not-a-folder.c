// calls: openat mkdir newfstatat chdir
// flags: ENOTDIR ENOENT
// what: a file on the way is ENOTDIR, a missing name on the way ENOENT, for every call
#include "../check.h"

int main(void)
{
	struct stat found;
	char text[8];
	enter_own_folder();
	write_file("data", "text");
	OUTCOME(open("data/x", O_RDONLY));
	OUTCOME(open("data/x", O_WRONLY | O_CREAT, 0644));
	VALUE(mkdir("data/x", 0755));
	VALUE(stat("data/x", &found));
	VALUE(unlink("data/x"));
	VALUE(rename("data/x", "y"));
	VALUE(readlink("data/x", text, sizeof text));
	VALUE(chdir("data"));
	OUTCOME(open("missing/x", O_WRONLY | O_CREAT, 0644));
	VALUE(mkdir("missing/x", 0755));
	VALUE(unlink("missing/x"));
	VALUE(chdir("missing"));
	VALUE(stat("", &found));
	return 0;
}
