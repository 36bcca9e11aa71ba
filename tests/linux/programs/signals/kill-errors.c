// calls: kill
// flags: none
// what: kill with 0 only asks; an unknown process is ESRCH, an unknown signal EINVAL
#include "../check.h"

int main(void)
{
	VALUE(kill(getpid(), 0));
	VALUE(kill(0x3ffffff, 0));
	VALUE(kill(0x3ffffff, SIGTERM));
	VALUE(kill(getpid(), 65));
	VALUE(kill(getpid(), -1));
	VALUE(sigqueue(getpid(), 65, (union sigval){ 0 }));
	VALUE(sigqueue(0x3ffffff, SIGTERM, (union sigval){ 0 }));
	return 0;
}
