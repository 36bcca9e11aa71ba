// calls: sched_getaffinity sched_setaffinity sched_yield getcpu
// flags: none
// what: a thread may run on at least one processor; masks too small or empty are EINVAL
#include "../check.h"

int main(void)
{
	cpu_set_t set, none;
	unsigned processor = 100000;
	CPU_ZERO(&set);
	CPU_ZERO(&none);
	VALUE(sched_getaffinity(0, sizeof set, &set));
	HOLDS(CPU_COUNT(&set) >= 1);
	VALUE(sched_setaffinity(0, sizeof set, &set));
	VALUE(sched_setaffinity(0, sizeof none, &none));
	HOLDS(syscall(SYS_sched_getaffinity, 0, sizeof set, &set) % 8 == 0);
	VALUE(syscall(SYS_sched_getaffinity, 0, 7, &set));
	VALUE(sched_yield());
	VALUE(syscall(SYS_getcpu, &processor, NULL, NULL));
	HOLDS(processor < 4096);
	HOLDS(sysconf(_SC_NPROCESSORS_ONLN) >= 1);
	return 0;
}
