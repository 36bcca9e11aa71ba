// calls: getppid
// flags: none
// what: a system call changes no register but rax, rcx and r11, and no vector register
#include "../check.h"

int main(void)
{
	uint64_t before[4] = { 1, 2, 3, 4 }, after[4] = { 0 }, number = SYS_getppid, r8, r9, r10, rbx, r12;
	for (int round = 0; round < 3; round++) {
		__asm__ volatile("movdqu (%[before]), %%xmm3\n movdqu 16(%[before]), %%xmm15\n"
						 "mov $8, %%r8\n mov $9, %%r9\n mov $10, %%r10\n mov $11, %%rbx\n mov $12, %%r12\n"
						 "mov %[number], %%rax\n syscall\n"
						 "movdqu %%xmm3, (%[after])\n movdqu %%xmm15, 16(%[after])\n"
						 "mov %%r8, %[r8]\n mov %%r9, %[r9]\n mov %%r10, %[r10]\n mov %%rbx, %[rbx]\n mov %%r12, %[r12]"
						 : [r8] "=m"(r8), [r9] "=m"(r9), [r10] "=m"(r10), [rbx] "=m"(rbx), [r12] "=m"(r12)
						 : [before] "D"(before), [after] "S"(after), [number] "m"(number)
						 : "rax", "rcx", "r11", "r8", "r9", "r10", "rbx", "r12", "xmm3", "xmm15", "memory");
		HOLDS(memcmp(before, after, sizeof before) == 0);
		HOLDS(r8 == 8 && r9 == 9 && r10 == 10 && rbx == 11 && r12 == 12);
	}
	return 0;
}
