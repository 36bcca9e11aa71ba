// calls: rename
// flags: none
// what: a renamed file replaces another one; onto another name of itself nothing happens
#include "../check.h"

int main(void)
{
	enter_own_folder();
	write_file("one", "first"), write_file("two", "second");
	int file = MUST(open("two", O_RDONLY));
	VALUE(rename("one", "two"));
	show_file("one"), show_file("two");
	struct stat found;
	MUST(fstat(file, &found));
	VALUE(found.st_nlink);
	MUST(link("two", "three"));
	VALUE(rename("two", "three"));
	show_file("two"), show_file("three");
	VALUE(rename("two", "two"));
	VALUE(rename("missing", "two"));
	VALUE(rename("two", "missing/two"));
	VALUE(rename("two", ""));
	VALUE(rename("two", "new/"));
	return 0;
}
