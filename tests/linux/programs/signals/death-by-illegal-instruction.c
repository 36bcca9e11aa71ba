// calls: none
// flags: SIGILL
// what: an undefined instruction without a handler ends the program with SIGILL
#include "../check.h"

int main(void)
{
	puts("before");
	__asm__ volatile("ud2");
	puts("not reached");
	return 0;
}
