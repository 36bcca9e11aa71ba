// calls: none
// flags: ENOSYS
// what: numbers that no call has are ENOSYS
#include "../check.h"

int main(void)
{
	VALUE(syscall(1000));
	VALUE(syscall(100000));
	VALUE(syscall(-1));
	VALUE(syscall(1l << 32 | 1000));
	VALUE(syscall(SYS_create_module));
	VALUE(syscall(SYS_getpmsg));
	return 0;
}
