// calls: fcntl
// flags: F_SETLK F_GETLK F_RDLCK F_WRLCK F_UNLCK
// what: a process never conflicts with its own locks of ranges; wrong modes and ranges are errors
#include "../check.h"

static struct flock range(short type, off_t start, off_t length)
{
	return (struct flock){ .l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = length };
}

int main(void)
{
	enter_own_folder();
	write_file("data", "0123456789");
	int one = MUST(open("data", O_RDWR)), two = MUST(open("data", O_RDWR)), reader = MUST(open("data", O_RDONLY));
	struct flock lock = range(F_WRLCK, 0, 5);
	VALUE(fcntl(one, F_SETLK, &lock));
	VALUE(fcntl(two, F_SETLK, &lock));
	lock = range(F_WRLCK, 0, 10);
	VALUE(fcntl(two, F_GETLK, &lock));
	HOLDS(lock.l_type == F_UNLCK);
	lock = range(F_WRLCK, 0, 1);
	VALUE(fcntl(reader, F_SETLK, &lock));
	lock = range(F_RDLCK, 2, -2);
	VALUE(fcntl(reader, F_SETLK, &lock));
	lock = range(F_RDLCK, 1, -2);
	VALUE(fcntl(reader, F_SETLK, &lock));
	lock = range(F_UNLCK, 0, 0);
	VALUE(fcntl(one, F_SETLKW, &lock));
	lock.l_type = 9;
	VALUE(fcntl(one, F_SETLK, &lock));
	return 0;
}
