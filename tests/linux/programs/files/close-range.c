// calls: close_range
// flags: CLOSE_RANGE_CLOEXEC
// what: a range of descriptors is closed, or marked to be closed at execve
#include "../check.h"

int main(void)
{
	for (int number = 100; number < 110; number++)
		MUST(dup2(1, number));
	VALUE(syscall(SYS_close_range, 103u, 105u, 0));
	for (int number = 100; number < 110; number++)
		printf("%d: %s\n", number, fcntl(number, F_GETFD) == -1 ? error_name(errno) : "open");
	VALUE(syscall(SYS_close_range, 108u, ~0u, 4));
	VALUE(fcntl(107, F_GETFD));
	VALUE(fcntl(108, F_GETFD));
	VALUE(syscall(SYS_close_range, 9u, 8u, 0));
	VALUE(syscall(SYS_close_range, 100u, 101u, 128));
	VALUE(syscall(SYS_close_range, 5000u, 6000u, 0));
	return 0;
}
