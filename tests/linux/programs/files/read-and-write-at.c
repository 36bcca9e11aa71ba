// calls: pread64 pwrite64
// flags: none
// what: pread and pwrite leave the position alone; negative offsets are EINVAL; gaps read as zero
#include "../check.h"

int main(void)
{
	char text[8] = "";
	enter_own_folder();
	int file = MUST(open("data", O_RDWR | O_CREAT, 0644));
	VALUE(pwrite(file, "abcd", 4, 6));
	VALUE(lseek(file, 0, SEEK_CUR));
	VALUE(pread(file, text, 4, 4));
	HOLDS(memcmp(text, "\0\0ab", 4) == 0);
	VALUE(pread(file, text, 4, 100));
	VALUE(pread(file, text, 4, -1));
	VALUE(pwrite(file, text, 4, -1));
	VALUE(pwrite(file, "end", 3, 5000));
	VALUE(lseek(file, 0, SEEK_END));
	VALUE(pread(file, text, 8, 4998));
	HOLDS(memcmp(text, "\0\0end", 5) == 0);
	return 0;
}
