// calls: rt_sigaction
// flags: SA_SIGINFO FPE_FLTDIV
// what: an unmasked division by zero of the vector unit is SIGFPE with FPE_FLTDIV
#include "../check.h"
#include <setjmp.h>

static sigjmp_buf back;

static void handle(int number, siginfo_t *info, void *context)
{
	(void)context;
	printf("%s\n", signal_name(number));
	HOLDS(info->si_code == FPE_FLTDIV);
	siglongjmp(back, 1);
}

int main(void)
{
	struct sigaction action = { .sa_sigaction = handle, .sa_flags = SA_SIGINFO };
	volatile double zero = 0, one = 1, result = 0;
	unsigned control, unmasked;
	result = one / zero;
	HOLDS(result > 1e308);
	MUST(sigaction(SIGFPE, &action, NULL));
	__asm__ volatile("stmxcsr %0" : "=m"(control));
	unmasked = control & ~(0x200u | 0x3fu); /* division by zero raises an exception; nothing is pending */
	if (sigsetjmp(back, 1) == 0) {
		__asm__ volatile("ldmxcsr %0" ::"m"(unmasked));
		result = one / zero;
		puts("not reached");
	}
	__asm__ volatile("ldmxcsr %0" ::"m"(control));
	return 0;
}
