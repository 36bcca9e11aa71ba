// calls: rt_sigaction
// flags: SA_SIGINFO SI_KERNEL
// what: an address that no processor can form is SIGSEGV from the kernel without an address
#include "../check.h"
#include <setjmp.h>

static sigjmp_buf back;

static void handle(int number, siginfo_t *info, void *context)
{
	(void)context;
	printf("%s, SI_KERNEL: %d, address: %ld\n", signal_name(number), info->si_code == SI_KERNEL, (long)info->si_addr);
	siglongjmp(back, 1);
}

int main(void)
{
	struct sigaction action = { .sa_sigaction = handle, .sa_flags = SA_SIGINFO };
	volatile int *volatile nowhere = (volatile int *)0x1234567800000000;
	MUST(sigaction(SIGSEGV, &action, NULL));
	if (sigsetjmp(back, 1) == 0)
		printf("read %d\n", *nowhere);
	if (sigsetjmp(back, 1) == 0)
		__asm__ volatile("hlt"); /* not allowed outside the kernel */
	return 0;
}
