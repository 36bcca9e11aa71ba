// calls: kill
// flags: SIGKILL
// what: SIGKILL to oneself cannot be blocked
#include "../check.h"

int main(void)
{
	sigset_t all;
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	puts("before");
	kill(getpid(), SIGKILL);
	puts("not reached");
	return 0;
}
