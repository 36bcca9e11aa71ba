// calls: mkdir rmdir mkdirat
// flags: none
// what: folders are made once and removed when empty
#include "../check.h"

int main(void)
{
	enter_own_folder();
	VALUE(mkdir("folder", 0755));
	VALUE(mkdir("folder", 0755));
	VALUE(mkdir("missing/folder", 0755));
	VALUE(mkdir("folder/inner/", 0755));
	VALUE(rmdir("folder"));
	VALUE(rmdir("folder/inner"));
	VALUE(rmdir("folder"));
	VALUE(rmdir("folder"));
	write_file("data", "text");
	VALUE(mkdir("data", 0755));
	VALUE(mkdir("data/folder", 0755));
	VALUE(rmdir("data"));
	VALUE(mkdir("", 0755));
	VALUE(mkdir("/", 0755));
	return 0;
}
