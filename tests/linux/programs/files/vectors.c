// calls: readv writev
// flags: none
// what: several buffers are written and read in one call, empty ones included
#include "../check.h"

int main(void)
{
	char first[4] = "", second[8] = "";
	struct iovec out[4] = { { "ab", 2 }, { "", 0 }, { "cdef", 4 }, { NULL, 0 } };
	struct iovec in[3] = { { first, 3 }, { NULL, 0 }, { second, 7 } };
	enter_own_folder();
	int file = MUST(open("data", O_RDWR | O_CREAT, 0644));
	VALUE(writev(file, out, 4));
	VALUE(lseek(file, 0, SEEK_SET));
	VALUE(readv(file, in, 3));
	printf("%s|%s\n", first, second);
	VALUE(readv(file, in, 3));
	VALUE(writev(file, out, 0));
	return 0;
}
