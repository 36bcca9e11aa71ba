// calls: mremap mincore
// flags: MREMAP_FIXED MREMAP_MAYMOVE
// what: a mapping can be moved over another one, which it replaces; its old place is free
#include "../check.h"

int main(void)
{
	unsigned char resident[1];
	char *from = map_anonymous(PAGE), *to = map_anonymous(3 * PAGE);
	memset(from, 'f', PAGE), memset(to, 't', 3 * PAGE);
	char *moved = mremap(from, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to + PAGE);
	HOLDS(moved == to + PAGE);
	HOLDS(to[0] == 't' && to[PAGE] == 'f' && to[2 * PAGE] == 't');
	VALUE(mincore(from, PAGE, resident));
	OUTCOME(mremap(to, PAGE, PAGE, MREMAP_FIXED, from));
	OUTCOME(mremap(to, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to + PAGE));
	return 0;
}
