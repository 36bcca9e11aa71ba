// calls: membarrier
// flags: MEMBARRIER_CMD_QUERY MEMBARRIER_CMD_PRIVATE_EXPEDITED
// what: private barriers are offered, need to be registered first, and then succeed
#include "../check.h"

int main(void)
{
	HOLDS(syscall(SYS_membarrier, 0, 0, 0) & 1 << 3);
	VALUE(syscall(SYS_membarrier, 1 << 3, 0, 0));
	VALUE(syscall(SYS_membarrier, 1 << 4, 0, 0));
	VALUE(syscall(SYS_membarrier, 1 << 3, 0, 0));
	VALUE(syscall(SYS_membarrier, 1 << 30, 0, 0));
	VALUE(syscall(SYS_membarrier, 0, 1 << 5, 0));
	return 0;
}
