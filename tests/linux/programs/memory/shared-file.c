// calls: mmap pread64 pwrite64
// flags: MAP_SHARED
// what: a shared mapping of a file and reads and writes of the file see each other
#include "../check.h"

int main(void)
{
	char text[8] = "";
	enter_own_folder();
	int file = MUST(open("data", O_RDWR | O_CREAT, 0644));
	MUST(ftruncate(file, PAGE));
	char *area = MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0));
	memcpy(area + 100, "mapped", 6);
	VALUE(pread(file, text, 6, 100));
	printf("read: %s\n", text);
	VALUE(pwrite(file, "written", 7, 200));
	printf("in memory: %.7s\n", area + 200);
	VALUE(munmap(area, PAGE));
	VALUE(pread(file, text, 6, 100));
	printf("read after munmap: %s\n", text);
	return 0;
}
