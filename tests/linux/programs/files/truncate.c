// calls: ftruncate truncate fstat
// flags: none
// what: a file is cut and extended with zeros; the position stays; errors for folders, readers and bad lengths
#include "../check.h"

int main(void)
{
	struct stat found;
	enter_own_folder();
	write_file("data", "0123456789");
	int file = MUST(open("data", O_RDWR)), reader = MUST(open("data", O_RDONLY));
	MUST(lseek(file, 8, SEEK_SET));
	VALUE(ftruncate(file, 4));
	VALUE(lseek(file, 0, SEEK_CUR));
	VALUE(truncate("data", 6));
	show_file("data");
	VALUE(write(file, "x", 1));
	show_file("data");
	VALUE(ftruncate(file, -1));
	VALUE(ftruncate(reader, 0));
	VALUE(truncate("missing", 0));
	VALUE(truncate(".", 0));
	VALUE(truncate("data", -1));
	VALUE(ftruncate(1000, 0));
	MUST(fstat(file, &found));
	VALUE(found.st_size);
	return 0;
}
