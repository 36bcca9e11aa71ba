// calls: sched_getscheduler sched_getparam sched_get_priority_max sched_get_priority_min sched_setscheduler
// flags: SCHED_OTHER SCHED_FIFO SCHED_RR
// what: threads are under the ordinary policy; priorities have their bounds; unknown policies are EINVAL
#include "../check.h"

int main(void)
{
	struct sched_param parameters = { .sched_priority = 9 };
	VALUE(syscall(SYS_sched_getscheduler, 0));
	VALUE(syscall(SYS_sched_getparam, 0, &parameters));
	VALUE(parameters.sched_priority);
	VALUE(sched_get_priority_max(SCHED_FIFO));
	VALUE(sched_get_priority_min(SCHED_FIFO));
	VALUE(sched_get_priority_max(SCHED_RR));
	VALUE(sched_get_priority_max(SCHED_OTHER));
	VALUE(sched_get_priority_max(77));
	VALUE(syscall(SYS_sched_setscheduler, 0, SCHED_OTHER, &parameters));
	parameters.sched_priority = 5;
	VALUE(syscall(SYS_sched_setscheduler, 0, SCHED_OTHER, &parameters));
	VALUE(syscall(SYS_sched_setscheduler, 0, 77, &parameters));
	VALUE(syscall(SYS_sched_getscheduler, -1));
	return 0;
}
