// calls: rt_sigaction rt_sigprocmask rt_sigreturn
// flags: SA_SIGINFO SA_RESTORER
// what: handlers, jumps out of them and cancelled threads with the GNU C library
// needs: libgcc_s.so.1
#include "../check.h"
#include <setjmp.h>

static sigjmp_buf back;

static void handle(int number, siginfo_t *info, void *context)
{
	(void)context;
	printf("%s at %ld\n", signal_name(number), (long)info->si_addr);
	siglongjmp(back, 1);
}

static void clean(void *argument)
{
	puts(argument);
}

static void *wait_for_ever(void *argument)
{
	pthread_cleanup_push(clean, "cleaned");
	for (;;)
		pause();
	pthread_cleanup_pop(0);
	return argument;
}

int main(void)
{
	struct sigaction action = { .sa_sigaction = handle, .sa_flags = SA_SIGINFO };
	pthread_t thread;
	void *value;
	MUST(sigaction(SIGSEGV, &action, NULL));
	if (sigsetjmp(back, 1) == 0)
		*(volatile char *)24 = 1;
	pthread_create(&thread, NULL, wait_for_ever, NULL);
	pthread_cancel(thread);
	pthread_join(thread, &value);
	HOLDS(value == PTHREAD_CANCELED);
	return 0;
}
