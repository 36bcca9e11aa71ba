// calls: mmap
// flags: MAP_PRIVATE
// what: what is written to a private mapping of a file does not reach the file
#include "../check.h"

int main(void)
{
	enter_own_folder();
	write_file("data", "from the file");
	int file = MUST(open("data", O_RDONLY));
	char *area = MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0));
	printf("mapped: %s\n", area);
	memcpy(area, "FROM", 4);
	printf("changed: %s\n", area);
	show_file("data");
	VALUE(munmap(area, PAGE));
	return 0;
}
