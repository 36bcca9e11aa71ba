// calls: lseek
// flags: SEEK_DATA SEEK_HOLE
// what: data and holes are found, or all is taken for data; behind the end is ENXIO
#include "../check.h"

int main(void)
{
	enter_own_folder();
	int file = MUST(open("data", O_RDWR | O_CREAT, 0644));
	MUST(pwrite(file, "data", 4, 0));
	MUST(pwrite(file, "data", 4, 1 << 20));
	off_t end = (1 << 20) + 4;
	VALUE(lseek(file, 0, SEEK_DATA));
	off_t hole = lseek(file, 0, SEEK_HOLE);
	HOLDS(hole == end || (hole >= 4 && hole <= 1 << 20));
	off_t data = lseek(file, hole < end ? hole : 0, SEEK_DATA);
	HOLDS(data == 0 || (data > hole && data <= 1 << 20));
	HOLDS(lseek(file, 1 << 20, SEEK_HOLE) == end);
	VALUE(lseek(file, end, SEEK_DATA));
	VALUE(lseek(file, end, SEEK_HOLE));
	VALUE(lseek(file, -1, SEEK_DATA));
	return 0;
}
