// calls: uname sethostname
// flags: none
// what: the name of the machine is that of uname and fits its bounds
#include "../check.h"
#include <sys/utsname.h>

int main(void)
{
	char name[256] = "";
	struct utsname known;
	VALUE(gethostname(name, sizeof name));
	MUST(uname(&known));
	HOLDS(strcmp(name, known.nodename) == 0 && name[0] != 0);
	VALUE(syscall(SYS_sethostname, name, -1));
	VALUE(syscall(SYS_sethostname, name, 65));
	return 0;
}
