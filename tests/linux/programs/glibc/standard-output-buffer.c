// calls: write
// flags: _IOFBF _IOLBF
// what: what is buffered leaves at exit, and at abort it does not
#include "../check.h"

int main(void)
{
	puts("first");
	fflush(stdout);
	setvbuf(stdout, NULL, _IOFBF, 4096);
	printf("second");
	fflush(stdout);
	printf("\nthird\n");
	exit(9);
}
