// calls: umask
// flags: none
// what: vector registers, their upper halves included, keep their values over a call
#include "../check.h"

/* Loads eight registers of 32 bytes, calls, and stores them. */
__attribute__((target("avx"), noinline)) static void call_with(const unsigned char *given, unsigned char *found)
{
	__asm__ volatile(
		"vmovdqu (%0), %%ymm0\n	vmovdqu 32(%0), %%ymm1\n	vmovdqu 64(%0), %%ymm7\n"
		"vmovdqu 96(%0), %%ymm8\n	vmovdqu 128(%0), %%ymm15\n"
		"mov $95, %%eax\n	syscall\n"
		"vmovdqu %%ymm0, (%1)\n	vmovdqu %%ymm1, 32(%1)\n	vmovdqu %%ymm7, 64(%1)\n"
		"vmovdqu %%ymm8, 96(%1)\n	vmovdqu %%ymm15, 128(%1)\n"
		"vzeroupper\n"
		: : "r"(given), "r"(found), "D"(022)
		: "rax", "rcx", "r11", "memory", "xmm0", "xmm1", "xmm7", "xmm8", "xmm15");
}

int main(void)
{
	unsigned char given[160], found[160];
	int changed = 0;
	if (!__builtin_cpu_supports("avx"))
		return 0;
	for (int round = 0; round < 100; round++) {
		for (unsigned index = 0; index < sizeof given; index++)
			given[index] = (unsigned char)(index * 7 + round);
		memset(found, 0, sizeof found);
		call_with(given, found);
		changed += memcmp(given, found, sizeof given) != 0;
	}
	VALUE(changed);
	return 0;
}
