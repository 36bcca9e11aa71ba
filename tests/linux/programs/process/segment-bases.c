// calls: arch_prctl
// flags: ARCH_GET_FS ARCH_SET_GS ARCH_GET_GS
// what: the bases of fs and gs are read and set; the program reads through gs
#include "../check.h"

int main(void)
{
	uint64_t base = 0, value[2] = { 11, 22 }, read;
	VALUE(syscall(SYS_arch_prctl, 0x1003, &base)); /* ARCH_GET_FS */
	HOLDS(base == *(uint64_t *)base);              /* the C library keeps a pointer to itself there */
	VALUE(syscall(SYS_arch_prctl, 0x1001, value)); /* ARCH_SET_GS */
	VALUE(syscall(SYS_arch_prctl, 0x1004, &base)); /* ARCH_GET_GS */
	HOLDS(base == (uint64_t)value);
	__asm__ volatile("mov %%gs:8, %0" : "=r"(read));
	VALUE(read);
	sched_yield();
	__asm__ volatile("mov %%gs:0, %0" : "=r"(read));
	VALUE(read);
	VALUE(syscall(SYS_arch_prctl, 0x9999, 0));
	return 0;
}
