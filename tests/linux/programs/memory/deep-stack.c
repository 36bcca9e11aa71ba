// calls: none
// flags: none
// what: the stack of the main thread grows by 4 MiB without more ado
#include "../check.h"

static __attribute__((noinline)) size_t descend(int depth)
{
	volatile char frame[PAGE];
	frame[0] = (char)depth;
	frame[PAGE - 1] = 1;
	return depth == 0 ? 0 : descend(depth - 1) + frame[PAGE - 1];
}

int main(void)
{
	VALUE(descend(1000));
	return 0;
}
