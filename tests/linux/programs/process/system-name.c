// calls: uname
// flags: none
// what: the system is Linux on x86_64 and has a release of numbers
#include "../check.h"
#include <sys/utsname.h>

int main(void)
{
	struct utsname name;
	int major = 0, minor = 0;
	VALUE(uname(&name));
	puts(name.sysname);
	puts(name.machine);
	HOLDS(sscanf(name.release, "%d.%d", &major, &minor) == 2 && major >= 4);
	HOLDS(name.nodename[0] != 0 && name.version[0] != 0);
	VALUE(syscall(SYS_uname, 8));
	return 0;
}
