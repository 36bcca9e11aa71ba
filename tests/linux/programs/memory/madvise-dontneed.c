// calls: madvise
// flags: MADV_DONTNEED
// what: anonymous pages are zero after MADV_DONTNEED; those of a private file mapping hold the file again
#include "../check.h"

int main(void)
{
	enter_own_folder();
	write_file("data", "file");
	char *area = map_anonymous(3 * PAGE);
	memset(area, 'x', 3 * PAGE);
	VALUE(madvise(area + PAGE, PAGE, MADV_DONTNEED));
	HOLDS(area[PAGE - 1] == 'x' && area[PAGE] == 0 && area[2 * PAGE - 1] == 0 && area[2 * PAGE] == 'x');
	area[PAGE] = 'y';
	HOLDS(area[PAGE] == 'y');
	int file = MUST(open("data", O_RDONLY));
	char *mapped = MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0));
	strcpy(mapped, "mine");
	VALUE(madvise(mapped, PAGE, MADV_DONTNEED));
	printf("mapped: %s\n", mapped);
	return 0;
}
