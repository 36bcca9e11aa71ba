// calls: getpid umask
// flags: none
// what: what a leaf function keeps below its stack pointer survives a call, however often its site was executed
#include "../check.h"

/* No function is called, so the compiler keeps `value` in the red zone, below the stack pointer. */
__attribute__((noinline)) static long leaf(long given)
{
	volatile long value[4] = {given, given + 1, given + 2, given + 3};
	long number;
	__asm__ volatile("mov $39, %%eax\n\tsyscall" : "=a"(number) : : "rcx", "r11");
	long mask;
	__asm__ volatile("mov $95, %%eax\n\tsyscall" : "=a"(mask) : "D"(022) : "rcx", "r11");
	return value[0] + value[1] + value[2] + value[3];
}

int main(void)
{
	long wrong = 0;
	umask(022);
	for (long round = 0; round < 1000; round++)
		wrong += leaf(round) != 4 * round + 6;
	VALUE(wrong);
	return 0;
}
