// calls: memfd_create mmap ftruncate
// flags: MFD_CLOEXEC MAP_SHARED
// what: two mappings of one memory file show the same bytes, also with different protection
#include "../check.h"

int main(void)
{
	int file = MUST(memfd_create("twice", MFD_CLOEXEC));
	MUST(ftruncate(file, 2 * PAGE));
	char *writable = MUST(mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0));
	char *second_page = MUST(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, file, PAGE));
	strcpy(writable + PAGE, "both");
	printf("second mapping: %s\n", second_page);
	MUST(pwrite(file, "file", 4, PAGE));
	printf("first mapping: %s\n", writable + PAGE);
	printf("second mapping: %s\n", second_page);
	return 0;
}
