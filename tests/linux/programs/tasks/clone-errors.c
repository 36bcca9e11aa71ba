// calls: clone
// flags: CLONE_THREAD CLONE_SIGHAND CLONE_VM
// what: a thread must share signal handlers, and signal handlers need shared memory: otherwise EINVAL
#include "../check.h"

int main(void)
{
	VALUE(syscall(SYS_clone, CLONE_THREAD, NULL, NULL, NULL, 0));
	VALUE(syscall(SYS_clone, CLONE_SIGHAND, NULL, NULL, NULL, 0));
	VALUE(syscall(SYS_clone, CLONE_THREAD | CLONE_SIGHAND, NULL, NULL, NULL, 0));
	VALUE(syscall(SYS_clone, CLONE_FS | CLONE_NEWNS, NULL, NULL, NULL, 0));
	return 0;
}
