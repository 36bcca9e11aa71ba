// calls: mlock munlock mlock2 mlockall munlockall
// flags: MCL_CURRENT MCL_FUTURE
// what: locking memory succeeds; holes and unknown flags are errors
#include "../check.h"

int main(void)
{
	char *area = map_anonymous(4 * PAGE);
	VALUE(mlock(area, 4 * PAGE));
	VALUE(munlock(area, 4 * PAGE));
	VALUE(syscall(SYS_mlock2, area, PAGE, 1));
	VALUE(syscall(SYS_mlock2, area, PAGE, 16));
	VALUE(munlock(area, PAGE));
	MUST(munmap(area + PAGE, PAGE));
	VALUE(mlock(area, 3 * PAGE));
	VALUE(mlockall(MCL_CURRENT));
	VALUE(mlockall(0));
	VALUE(munlockall());
	return 0;
}
