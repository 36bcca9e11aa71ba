// calls: getpid
// flags: none
// what: numbers that are no system call fail with ENOSYS, however often they are tried
#include "../check.h"

int main(void)
{
	int others = 0;
	for (int round = 0; round < 100; round++) {
		long small, large;
		__asm__ volatile("mov $512, %%eax\n\tsyscall" : "=a"(small) : : "rcx", "r11", "memory");
		__asm__ volatile("mov $-1, %%eax\n\tsyscall" : "=a"(large) : : "rcx", "r11", "memory");
		others += small != -ENOSYS || large != -ENOSYS;
	}
	VALUE(others);
	return 0;
}
