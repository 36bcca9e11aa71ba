// calls: openat fstat
// flags: O_TRUNC
// what: O_TRUNC empties a file that is opened for writing, not one that is created or kept open elsewhere
#include "../check.h"

int main(void)
{
	struct stat found;
	enter_own_folder();
	write_file("data", "0123456789");
	int before = MUST(open("data", O_RDWR));
	int file = MUST(open("data", O_WRONLY | O_TRUNC));
	MUST(fstat(before, &found));
	VALUE(found.st_size);
	MUST(write(file, "ab", 2));
	show_file("data");
	MUST(open("data", O_WRONLY | O_CREAT, 0600));
	show_file("data");
	OUTCOME(open(".", O_WRONLY | O_TRUNC));
	return 0;
}
