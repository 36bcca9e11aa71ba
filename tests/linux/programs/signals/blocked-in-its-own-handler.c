// calls: rt_sigaction rt_sigprocmask tkill
// flags: SA_NODEFER
// what: a signal waits while its own handler runs, unless SA_NODEFER lets it in
#include "../check.h"

static volatile int depth, deepest, runs;

static void handle(int number)
{
	runs++;
	if (++depth > deepest)
		deepest = depth;
	if (runs < 3)
		raise(number);
	depth--;
}

static void run(int flags)
{
	struct sigaction action = { .sa_handler = handle, .sa_flags = flags };
	depth = deepest = runs = 0;
	MUST(sigaction(SIGUSR1, &action, NULL));
	raise(SIGUSR1);
	VALUE(runs);
	VALUE(deepest);
}

int main(void)
{
	run(0);
	run(SA_NODEFER);
	return 0;
}
