// calls: exit_group
// flags: none
// what: _exit runs no handler and writes no buffer
#include "../check.h"

static void farewell(void)
{
	puts("not reached");
}

int main(void)
{
	atexit(farewell);
	puts("written");
	setvbuf(stdout, NULL, _IOFBF, 1000);
	printf("lost");
	_exit(7);
}
