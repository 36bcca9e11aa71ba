// calls: none
// flags: SIGSEGV
// what: a fault without a handler ends the program; what it printed before is not lost
#include "../check.h"

int main(void)
{
	puts("before");
	*(volatile char *)8 = 1;
	puts("not reached");
	return 0;
}
