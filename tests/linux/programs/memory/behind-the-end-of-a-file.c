// calls: mmap
// flags: MAP_SHARED MAP_PRIVATE
// what: the rest of the last page of a mapped file is zero, and what is written there does not reach the file
#include "../check.h"

int main(void)
{
	struct stat found;
	enter_own_folder();
	write_file("data", "short");
	int file = MUST(open("data", O_RDWR));
	char *area = MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0));
	HOLDS(area[5] == 0 && area[PAGE - 1] == 0);
	area[5] = '!';
	VALUE(fstat(file, &found));
	HOLDS(found.st_size == 5);
	show_file("data");
	area[0] = 'S';
	show_file("data");
	return 0;
}
