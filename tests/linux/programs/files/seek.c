// calls: lseek
// flags: SEEK_SET SEEK_CUR SEEK_END
// what: positions are set from start, current place and end, also behind the end; negative ones are EINVAL
#include "../check.h"

int main(void)
{
	char byte;
	enter_own_folder();
	write_file("data", "0123456789");
	int file = MUST(open("data", O_RDWR));
	VALUE(lseek(file, 3, SEEK_SET));
	VALUE(lseek(file, 2, SEEK_CUR));
	VALUE(lseek(file, -1, SEEK_END));
	VALUE(read(file, &byte, 1));
	VALUE(lseek(file, -11, SEEK_END));
	VALUE(lseek(file, -1, SEEK_SET));
	VALUE(lseek(file, 0, SEEK_CUR));
	VALUE(lseek(file, 100, SEEK_END));
	VALUE(read(file, &byte, 1));
	VALUE(lseek(file, 0, 99));
	VALUE(lseek(1000, 0, SEEK_SET));
	return 0;
}
