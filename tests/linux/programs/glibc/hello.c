// calls: openat mmap mprotect read write
// flags: PT_INTERP
// what: a program of the GNU C library is loaded with its interpreter and library, and prints
#include "../check.h"

int main(int count, char **arguments)
{
	VALUE(count);
	HOLDS(arguments[0] != NULL && arguments[count] == NULL);
	puts("hello");
	return 0;
}
