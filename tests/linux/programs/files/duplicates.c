// calls: dup dup2 dup3 fcntl lseek
// flags: F_DUPFD
// what: duplicates share the position; the lowest free number is taken; dup3 refuses equal numbers
#include "../check.h"

int main(void)
{
	enter_own_folder();
	write_file("data", "0123456789");
	int file = MUST(open("data", O_RDONLY)), copy = MUST(dup(file));
	HOLDS(copy == file + 1);
	VALUE(lseek(file, 4, SEEK_SET));
	VALUE(lseek(copy, 0, SEEK_CUR));
	VALUE(fcntl(file, F_DUPFD, 200));
	VALUE(fcntl(file, F_DUPFD, 200));
	VALUE(dup2(file, 300));
	VALUE(dup2(300, 300));
	VALUE(dup3(300, 300, 0));
	VALUE(dup3(file, 301, O_APPEND));
	VALUE(dup2(1000, 302));
	VALUE(dup2(file, -1));
	VALUE(dup2(file, 1 << 30));
	VALUE(fcntl(file, F_DUPFD, -1));
	close(file);
	VALUE(lseek(300, 0, SEEK_CUR));
	return 0;
}
