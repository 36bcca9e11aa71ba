// calls: mincore
// flags: none
// what: touched pages are resident; unaligned addresses, holes and bad vectors have their errors
#include "../check.h"

int main(void)
{
	unsigned char resident[4] = { 0 };
	char *area = map_anonymous(4 * PAGE);
	area[0] = area[3 * PAGE] = 1;
	VALUE(mincore(area, 4 * PAGE, resident));
	HOLDS(resident[0] & 1);
	HOLDS(resident[3] & 1);
	VALUE(mincore(area, 0, resident));
	VALUE(mincore(area + 1, PAGE, resident));
	VALUE(mincore(area, PAGE, NULL));
	MUST(munmap(area + PAGE, PAGE));
	VALUE(mincore(area, 2 * PAGE, resident));
	return 0;
}
