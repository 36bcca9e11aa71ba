// calls: openat write pwrite64 lseek fcntl
// flags: O_APPEND
// what: each write goes to the end wherever the position is, even a pwrite; fcntl can switch that off
#include "../check.h"

int main(void)
{
	enter_own_folder();
	write_file("data", "one ");
	int file = MUST(open("data", O_RDWR | O_APPEND));
	VALUE(lseek(file, 0, SEEK_CUR));
	VALUE(write(file, "two ", 4));
	VALUE(lseek(file, 0, SEEK_CUR));
	VALUE(lseek(file, 0, SEEK_SET));
	VALUE(write(file, "three ", 6));
	VALUE(pwrite(file, "four", 4, 0));
	show_file("data");
	VALUE(fcntl(file, F_SETFL, 0));
	VALUE(pwrite(file, "ONE", 3, 0));
	show_file("data");
	return 0;
}
