// calls: rmdir unlink unlinkat
// flags: AT_REMOVEDIR
// what: ".", "..", folders and files are each removed by the right call only
#include "../check.h"

int main(void)
{
	enter_own_folder();
	MUST(mkdir("folder", 0755));
	write_file("data", "text");
	MUST(symlink("folder", "link"));
	VALUE(rmdir("."));
	VALUE(rmdir("folder/."));
	VALUE(rmdir("folder/.."));
	VALUE(rmdir("link"));
	VALUE(unlink("folder"));
	VALUE(unlink("folder/"));
	VALUE(unlink("data/"));
	VALUE(unlinkat(AT_FDCWD, "data", AT_REMOVEDIR));
	VALUE(unlinkat(AT_FDCWD, "folder", 0));
	VALUE(unlinkat(AT_FDCWD, "folder", AT_REMOVEDIR));
	VALUE(unlinkat(AT_FDCWD, "data", 0));
	VALUE(unlinkat(AT_FDCWD, "link", 0x8000));
	VALUE(unlink("link"));
	VALUE(unlink(""));
	return 0;
}
