// calls: rename
// flags: none
// what: a folder replaces only an empty folder, never a file, and cannot move into itself
#include "../check.h"

int main(void)
{
	enter_own_folder();
	MUST(mkdir("one", 0755)), MUST(mkdir("two", 0755)), MUST(mkdir("full", 0755));
	write_file("one/data", "text"), write_file("full/data", "text"), write_file("file", "text");
	VALUE(rename("one", "full"));
	VALUE(rename("one", "file"));
	VALUE(rename("file", "one"));
	VALUE(rename("one", "one/inner"));
	VALUE(rename("one", "two"));
	show_file("two/data");
	VALUE(rename("two/data", "data"));
	VALUE(rename("two/", "three/"));
	VALUE(rename(".", "four"));
	VALUE(rename("three", "full/three"));
	VALUE(access("full/three/.", F_OK));
	VALUE(access("full/three/../data", F_OK));
	return 0;
}
