// calls: sysinfo
// flags: none
// what: memory, uptime and processors make sense
#include "../check.h"
#include <sys/sysinfo.h>

int main(void)
{
	struct sysinfo facts;
	VALUE(sysinfo(&facts));
	HOLDS(facts.uptime < 1ul << 40 && facts.mem_unit > 0 && facts.procs > 0);
	HOLDS(facts.totalram >= facts.freeram);
	HOLDS((uint64_t)facts.totalram * facts.mem_unit >= 8 << 20);
	HOLDS(sysconf(_SC_PAGESIZE) == 4096);
	HOLDS(sysconf(_SC_NPROCESSORS_ONLN) >= 1);
	HOLDS(sysconf(_SC_PHYS_PAGES) > 0 && sysconf(_SC_AVPHYS_PAGES) >= 0);
	HOLDS(sysconf(_SC_OPEN_MAX) > 0);
	VALUE(syscall(SYS_sysinfo, 8));
	return 0;
}
