// calls: sigaltstack tgkill
// flags: SA_ONSTACK
// what: the alternate stack belongs to a thread: a new thread has none
#include "../check.h"

static char memory[65536];
static volatile int on_alternate;

static void handle(int number)
{
	char local;
	(void)number;
	on_alternate = &local >= memory && &local < memory + sizeof memory;
}

static void *signal_itself(void *argument)
{
	stack_t found;
	MUST(sigaltstack(NULL, &found));
	HOLDS(found.ss_flags == SS_DISABLE);
	pthread_kill(pthread_self(), SIGUSR1);
	HOLDS(!on_alternate);
	return argument;
}

int main(void)
{
	struct sigaction action = { .sa_handler = handle, .sa_flags = SA_ONSTACK };
	stack_t stack = { .ss_sp = memory, .ss_size = sizeof memory };
	pthread_t thread;
	MUST(sigaltstack(&stack, NULL));
	MUST(sigaction(SIGUSR1, &action, NULL));
	pthread_create(&thread, NULL, signal_itself, NULL);
	pthread_join(thread, NULL);
	raise(SIGUSR1);
	HOLDS(on_alternate);
	return 0;
}
