// calls: openat
// flags: AT_FDCWD
// what: a relative path starts at the given folder; an absolute one needs none; files and bad descriptors are errors
#include "../check.h"

int main(void)
{
	enter_own_folder();
	MUST(mkdir("folder", 0755));
	write_file("folder/data", "text");
	int folder = MUST(open("folder", O_RDONLY)), file = MUST(open("folder/data", O_RDONLY));
	OUTCOME(openat(folder, "data", O_RDONLY));
	OUTCOME(openat(folder, "../folder/data", O_RDONLY));
	OUTCOME(openat(AT_FDCWD, "folder/data", O_RDONLY));
	OUTCOME(openat(file, "data", O_RDONLY));
	OUTCOME(openat(1000, "data", O_RDONLY));
	OUTCOME(openat(1000, "/dev/null", O_RDONLY));
	OUTCOME(openat(folder, "", O_RDONLY));
	OUTCOME(openat(folder, NULL, O_RDONLY));
	return 0;
}
