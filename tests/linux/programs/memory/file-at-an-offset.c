// calls: mmap
// flags: MAP_PRIVATE
// what: a mapping can start at any page of a file
#include "../check.h"

int main(void)
{
	enter_own_folder();
	int file = MUST(open("data", O_RDWR | O_CREAT, 0644));
	for (int page = 0; page < 4; page++)
		MUST(pwrite(file, &"ABCD"[page], 1, page * PAGE));
	char *area = MUST(mmap(NULL, 2 * PAGE, PROT_READ, MAP_PRIVATE, file, 2 * PAGE));
	printf("%c %c\n", area[0], area[PAGE]);
	char *whole = MUST(mmap(NULL, 3 * PAGE + 1, PROT_READ, MAP_SHARED, file, 0));
	printf("%c %c %c %c\n", whole[0], whole[PAGE], whole[2 * PAGE], whole[3 * PAGE]);
	return 0;
}
