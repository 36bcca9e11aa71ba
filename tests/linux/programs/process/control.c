// calls: prctl
// flags: PR_SET_NAME PR_SET_PDEATHSIG PR_SET_NO_NEW_PRIVS PR_SET_DUMPABLE PR_GET_KEEPCAPS PR_SET_CHILD_SUBREAPER
// what: what runtimes set is accepted and read back; unknown requests are EINVAL
#include "../check.h"
#include <sys/prctl.h>

int main(void)
{
	int value = -1;
	VALUE(prctl(PR_SET_PDEATHSIG, SIGKILL));
	VALUE(prctl(PR_GET_PDEATHSIG, &value));
	HOLDS(value == SIGKILL);
	VALUE(prctl(PR_SET_PDEATHSIG, 99));
	VALUE(prctl(PR_SET_PDEATHSIG, 0));
	VALUE(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
	VALUE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	VALUE(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
	VALUE(prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0));
	VALUE(prctl(PR_SET_DUMPABLE, 0));
	VALUE(prctl(PR_GET_DUMPABLE));
	VALUE(prctl(PR_SET_DUMPABLE, 1));
	VALUE(prctl(PR_SET_DUMPABLE, 9));
	VALUE(prctl(PR_SET_CHILD_SUBREAPER, 1));
	HOLDS(prctl(PR_GET_TIMERSLACK) > 0);
	VALUE(prctl(99999, 0, 0, 0, 0));
	return 0;
}
