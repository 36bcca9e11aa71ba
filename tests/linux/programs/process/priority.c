// calls: getpriority setpriority
// flags: PRIO_PROCESS
// what: niceness can be raised and read back, up to 19; unknown kinds are EINVAL, unknown processes ESRCH
#include "../check.h"
#include <sys/resource.h>

int main(void)
{
	VALUE(setpriority(PRIO_PROCESS, 0, 10));
	VALUE(getpriority(PRIO_PROCESS, 0));
	VALUE(nice(2));
	VALUE(setpriority(PRIO_PROCESS, 0, 100));
	VALUE(getpriority(PRIO_PROCESS, 0));
	VALUE(getpriority(9, 0));
	VALUE(getpriority(PRIO_PROCESS, 0x3ffffff));
	return 0;
}
