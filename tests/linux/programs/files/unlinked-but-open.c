// calls: unlink fstat read write
// flags: none
// what: a file without a name lives as long as it is open; the name is free for another
#include "../check.h"

int main(void)
{
	struct stat found;
	char text[16] = "";
	enter_own_folder();
	write_file("data", "first");
	int file = MUST(open("data", O_RDWR));
	VALUE(unlink("data"));
	MUST(fstat(file, &found));
	VALUE(found.st_nlink);
	write_file("data", "second");
	VALUE(pwrite(file, "FIRST file", 10, 0));
	VALUE(pread(file, text, 15, 0));
	puts(text);
	show_file("data");
	VALUE(unlink("data"));
	VALUE(unlink("data"));
	return 0;
}
