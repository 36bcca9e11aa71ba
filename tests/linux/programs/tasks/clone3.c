// calls: clone3
// flags: CLONE_VM CLONE_THREAD CLONE_SIGHAND
// what: clone3 refuses sizes and combinations that make no sense
#include "../check.h"

int main(void)
{
	uint64_t arguments[11] = { CLONE_THREAD };
	VALUE(syscall(SYS_clone3, arguments, 8));
	VALUE(syscall(SYS_clone3, arguments, 2 * PAGE));
	VALUE(syscall(SYS_clone3, arguments, 64));
	VALUE(syscall(SYS_clone3, NULL, 64));
	arguments[0] = CLONE_VM | CLONE_THREAD | CLONE_SIGHAND;
	arguments[5] = 4096; /* a stack that has a start but no size */
	arguments[6] = 0;
	VALUE(syscall(SYS_clone3, arguments, 64));
	return 0;
}
