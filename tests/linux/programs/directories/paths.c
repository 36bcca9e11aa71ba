// calls: openat mkdir
// flags: none
// what: repeated slashes, "." and ".." lead where they should; ".." of the root is the root
#include "../check.h"

int main(void)
{
	enter_own_folder();
	MUST(mkdir("one", 0755)), MUST(mkdir("one/two", 0755));
	write_file("data", "text");
	MUST(symlink("one/two", "link"));
	OUTCOME(open("./data", O_RDONLY));
	OUTCOME(open(".//one///../data", O_RDONLY));
	OUTCOME(open("one/two/../../data", O_RDONLY));
	OUTCOME(open("link/../../data", O_RDONLY));
	OUTCOME(open("link/../data", O_RDONLY));
	OUTCOME(open("missing/../data", O_RDONLY));
	OUTCOME(open("data/../data", O_RDONLY));
	OUTCOME(open("/../../../dev/null", O_RDONLY));
	OUTCOME(open("//dev//null", O_RDONLY));
	OUTCOME(open("one/two/.", O_RDONLY));
	return 0;
}
