// calls: mremap write read
// flags: MREMAP_MAYMOVE
// what: a moved mapping keeps its protection, and mprotect of the new place works
#include "../check.h"

int main(void)
{
	int channel[2];
	MUST(pipe(channel));
	char *area = map_anonymous(PAGE);
	area[0] = 'x';
	MUST(mprotect(area, PAGE, PROT_READ));
	char *moved = MUST(mremap(area, PAGE, 512 * PAGE, MREMAP_MAYMOVE));
	VALUE(write(channel[1], moved, 1));
	VALUE(read(channel[0], moved + PAGE, 1));
	VALUE(mprotect(moved, 512 * PAGE, PROT_READ | PROT_WRITE));
	VALUE(read(channel[0], moved + PAGE, 1));
	HOLDS(moved[0] == 'x' && moved[PAGE] == 'x');
	return 0;
}
