// calls: rt_sigprocmask rt_sigaction
// flags: SIG_BLOCK
// what: a fault whose signal is blocked ends the program although it has a handler
#include "../check.h"

static void handle(int number)
{
	puts(signal_name(number));
	_exit(1);
}

int main(void)
{
	struct sigaction action = { .sa_handler = handle };
	sigset_t set;
	MUST(sigaction(SIGSEGV, &action, NULL));
	sigemptyset(&set), sigaddset(&set, SIGSEGV);
	MUST(sigprocmask(SIG_BLOCK, &set, NULL));
	puts("before");
	*(volatile char *)8 = 1;
	puts("not reached");
	return 0;
}
