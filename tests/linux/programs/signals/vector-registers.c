// calls: rt_sigaction rt_sigreturn
// flags: none
// what: vector registers and the control words of the floating-point units survive a handler that changes them
#include "../check.h"

static void handle(int number)
{
	unsigned control = 0x1f80 | 0x6000; /* rounds towards zero */
	(void)number;
	__asm__ volatile("pcmpeqd %%xmm0, %%xmm0\n pcmpeqd %%xmm7, %%xmm7\n pcmpeqd %%xmm15, %%xmm15\n ldmxcsr %0\n fninit"
					 :
					 : "m"(control)
					 : "xmm0", "xmm7", "xmm15");
}

int main(void)
{
	struct sigaction action = { .sa_handler = handle };
	uint64_t before[4] = { 0x1111, 0x2222, 0x3333, 0x4444 }, after[4];
	unsigned control_before, control_after;
	uint64_t pid = getpid();
	MUST(sigaction(SIGUSR1, &action, NULL));
	__asm__ volatile("stmxcsr %[was]\n movdqu (%[before]), %%xmm0\n movdqu 16(%[before]), %%xmm15\n"
					 "mov %[pid], %%rdi\n mov $10, %%esi\n mov $62, %%eax\n syscall\n" /* kill(getpid(), SIGUSR1) */
					 "movdqu %%xmm0, (%[after])\n movdqu %%xmm15, 16(%[after])\n stmxcsr %[now]"
					 : [was] "=m"(control_before), [now] "=m"(control_after)
					 : [before] "r"(before), [after] "r"(after), [pid] "m"(pid)
					 : "rax", "rcx", "r11", "rdi", "rsi", "xmm0", "xmm15", "memory");
	HOLDS(memcmp(before, after, sizeof before) == 0);
	HOLDS(control_before == control_after);
	return 0;
}
