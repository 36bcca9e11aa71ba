// calls: sigaltstack rt_sigaction
// flags: SA_ONSTACK SS_ONSTACK
// what: the overflow of a stack is handled on the alternate stack
#include "../check.h"
#include <setjmp.h>

static sigjmp_buf back;
static char *alternate;

static void handle(int number)
{
	char local;
	stack_t stack;
	printf("%s\n", signal_name(number));
	HOLDS(&local >= alternate && &local < alternate + 16 * PAGE);
	sigaltstack(NULL, &stack);
	HOLDS(stack.ss_flags & SS_ONSTACK);
	siglongjmp(back, 1);
}

static __attribute__((noinline)) int descend(volatile char *above)
{
	volatile char frame[PAGE];
	frame[0] = above[0];
	return above[0] == 1 ? 0 : descend(frame) + frame[1];
}

static void *overflow(void *argument)
{
	struct sigaction action = { .sa_handler = handle, .sa_flags = SA_ONSTACK };
	stack_t stack = { .ss_sp = alternate, .ss_size = 16 * PAGE };
	MUST(sigaltstack(&stack, NULL));
	MUST(sigaction(SIGSEGV, &action, NULL));
	if (sigsetjmp(back, 1) == 0)
		descend("");
	puts("recovered");
	return argument;
}

int main(void)
{
	pthread_t thread;
	alternate = map_anonymous(16 * PAGE);
	pthread_create(&thread, NULL, overflow, NULL);
	pthread_join(thread, NULL);
	return 0;
}
