// calls: mmap mincore
// flags: MAP_POPULATE MAP_STACK MAP_NORESERVE
// what: MAP_POPULATE makes pages resident at once; MAP_STACK and MAP_NORESERVE are accepted
#include "../check.h"

int main(void)
{
	unsigned char resident[8];
	int flags = MAP_PRIVATE | MAP_ANONYMOUS;
	char *area = MUST(mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, flags | MAP_POPULATE, -1, 0));
	VALUE(mincore(area, 8 * PAGE, resident));
	HOLDS(resident[0] & resident[3] & resident[7] & 1);
	char *stack = MUST(mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, flags | MAP_STACK | MAP_NORESERVE, -1, 0));
	stack[8 * PAGE - 1] = 1;
	HOLDS(stack[8 * PAGE - 1] == 1);
	return 0;
}
