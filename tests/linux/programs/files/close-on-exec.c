// calls: openat fcntl dup3 pipe2
// flags: O_CLOEXEC FD_CLOEXEC F_DUPFD_CLOEXEC
// what: the close-on-exec flag belongs to a descriptor: duplicates start without it unless asked for
#include "../check.h"

int main(void)
{
	int ends[2];
	int file = MUST(open("/dev/null", O_RDONLY | O_CLOEXEC));
	VALUE(fcntl(file, F_GETFD));
	VALUE(fcntl(dup(file), F_GETFD));
	VALUE(fcntl(fcntl(file, F_DUPFD_CLOEXEC, 0), F_GETFD));
	VALUE(fcntl(file, F_SETFD, 0));
	VALUE(fcntl(file, F_GETFD));
	VALUE(fcntl(dup3(file, 100, O_CLOEXEC), F_GETFD));
	MUST(pipe2(ends, O_CLOEXEC));
	VALUE(fcntl(ends[0], F_GETFD));
	VALUE(fcntl(1000, F_GETFD));
	return 0;
}
