// calls: getuid geteuid getgid getegid getresuid getresgid setuid setgid
// flags: none
// what: the process runs as root; setting the identity it has already succeeds
#include "../check.h"

int main(void)
{
	uid_t real, effective, saved;
	VALUE(getuid());
	VALUE(geteuid());
	VALUE(getgid());
	VALUE(getegid());
	VALUE(getresuid(&real, &effective, &saved));
	HOLDS(real == 0 && effective == 0 && saved == 0);
	VALUE(getresgid(&real, &effective, &saved));
	VALUE(setuid(0));
	VALUE(setgid(0));
	VALUE(setresuid(-1, 0, -1));
	HOLDS(getgroups(0, NULL) >= 0);
	VALUE(getgroups(-1, NULL));
	return 0;
}
