// calls: fcntl
// flags: F_OFD_SETLK F_OFD_GETLK
// what: locks of open files conflict within a process as well, range by range
#include "../check.h"

static struct flock range(short type, off_t start, off_t length)
{
	return (struct flock){ .l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = length };
}

int main(void)
{
	enter_own_folder();
	write_file("data", "0123456789");
	int one = MUST(open("data", O_RDWR)), two = MUST(open("data", O_RDWR));
	struct flock lock = range(F_WRLCK, 2, 3);
	VALUE(fcntl(one, F_OFD_SETLK, &lock));
	lock = range(F_WRLCK, 4, 1);
	VALUE(fcntl(two, F_OFD_SETLK, &lock));
	VALUE(fcntl(two, F_OFD_GETLK, &lock));
	HOLDS(lock.l_type == F_WRLCK && lock.l_start == 2 && lock.l_len == 3 && lock.l_pid == -1);
	lock = range(F_RDLCK, 5, 0);
	VALUE(fcntl(two, F_OFD_SETLK, &lock));
	lock = range(F_RDLCK, 0, 10);
	VALUE(fcntl(one, F_OFD_SETLK, &lock));
	lock = range(F_WRLCK, 4, 1);
	VALUE(fcntl(two, F_OFD_SETLK, &lock));
	close(one);
	VALUE(fcntl(two, F_OFD_SETLK, &lock));
	lock.l_pid = 1;
	VALUE(fcntl(two, F_OFD_SETLK, &lock));
	return 0;
}
