// calls: rseq
// flags: none
// what: a thread registers its area for restartable sequences once; wrong sizes and signatures are EINVAL
#include "../check.h"

int main(void)
{
	static uint32_t area[8] __attribute__((aligned(32)));
	area[1] = ~0u;
	VALUE(syscall(SYS_rseq, area, 16, 0, 0x53053053));
	VALUE(syscall(SYS_rseq, area, sizeof area, 0, 0x53053053));
	HOLDS(area[1] < 4096); /* the number of the processor */
	VALUE(syscall(SYS_rseq, area, sizeof area, 0, 0x53053053));
	VALUE(syscall(SYS_rseq, area, sizeof area, 1, 0x12345678));
	VALUE(syscall(SYS_rseq, area, sizeof area, 1, 0x53053053));
	VALUE(syscall(SYS_rseq, area, sizeof area, 8, 0x53053053));
	return 0;
}
