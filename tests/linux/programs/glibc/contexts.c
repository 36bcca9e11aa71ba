// calls: rt_sigprocmask
// flags: none
// what: user contexts switch stacks and come back, as coroutine libraries do
#include "../check.h"
#include <ucontext.h>

static ucontext_t main_context, other;
static int steps;

static void run(int first, int second)
{
	printf("started with %d and %d\n", first, second);
	for (int round = 0; round < 3; round++) {
		steps++;
		swapcontext(&other, &main_context);
	}
}

int main(void)
{
	static char stack[65536];
	getcontext(&other);
	other.uc_stack.ss_sp = stack;
	other.uc_stack.ss_size = sizeof stack;
	other.uc_link = &main_context;
	makecontext(&other, (void (*)(void))run, 2, 3, 4);
	for (int round = 0; round < 3; round++) {
		swapcontext(&main_context, &other);
		VALUE(steps);
	}
	return 0;
}
