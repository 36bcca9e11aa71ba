// calls: write
// flags: PROT_NONE
// what: a write to a file from a buffer that ends in inaccessible memory writes what comes before
#include "../check.h"

int main(void)
{
	struct stat found;
	enter_own_folder();
	char *area = map_anonymous(2 * PAGE);
	memset(area, 'x', PAGE);
	MUST(mprotect(area + PAGE, PAGE, PROT_NONE));
	int file = MUST(open("data", O_RDWR | O_CREAT, 0644));
	VALUE(write(file, area + PAGE - 10, 10));
	HOLDS(write(file, area + PAGE - 10, 20) <= 10);
	VALUE(write(file, area + PAGE, 20));
	MUST(fstat(file, &found));
	HOLDS(found.st_size >= 10 && found.st_size <= 20);
	return 0;
}
