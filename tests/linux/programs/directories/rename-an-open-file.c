// calls: renameat openat readlink
// flags: none
// what: an open file and the current folder keep working when they are renamed; their paths follow
#include "../check.h"

int main(void)
{
	char path[128] = "", link[64];
	enter_own_folder();
	MUST(mkdir("folder", 0755));
	write_file("folder/data", "text");
	int file = MUST(open("folder/data", O_RDWR));
	MUST(chdir("folder"));
	VALUE(rename("../folder", "../moved"));
	VALUE(rename("data", "other"));
	VALUE(pwrite(file, "TEXT", 4, 0));
	show_file("other");
	snprintf(link, sizeof link, "/proc/self/fd/%d", file);
	MUST(readlink(link, path, sizeof path - 1));
	HOLDS(strstr(path, "/moved/other") != NULL);
	HOLDS(strstr(getcwd(path, sizeof path), "/moved") != NULL);
	return 0;
}
