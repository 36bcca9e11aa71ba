// calls: clone exit
// flags: CLONE_VM CLONE_THREAD CLONE_SIGHAND CLONE_FILES CLONE_FS
// what: from a call site that was executed often, parent and child of a clone both return to the instruction after it
#include "../check.h"

static volatile int arrived;
static char stack[16384] __attribute__((aligned(16)));

static long start_one(void)
{
	long flags = CLONE_VM | CLONE_THREAD | CLONE_SIGHAND | CLONE_FILES | CLONE_FS | CLONE_SYSVSEM;
	long result;
	char *top = stack + sizeof stack - 64;
	__asm__ volatile(
		"xor %%edx, %%edx\n	xor %%r10d, %%r10d\n	xor %%r8d, %%r8d\n"
		"mov $56, %%eax\n	syscall\n"
		"test %%eax, %%eax\n	jnz 1f\n"
		"lock incl %3\n"
		"mov $60, %%eax\n	xor %%edi, %%edi\n	syscall\n"
		"1:\n"
		: "=a"(result) : "D"(flags), "S"(top), "m"(arrived)
		: "rcx", "r11", "rdx", "r8", "r10", "memory");
	return result;
}

int main(void)
{
	int failed = 0;
	for (int round = 0; round < 40; round++) {
		failed += start_one() <= 0;
		while (arrived <= round)
			sched_yield();
	}
	VALUE(failed);
	VALUE(arrived);
	return 0;
}
