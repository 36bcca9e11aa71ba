// calls: ppoll rt_sigprocmask
// flags: none
// what: ppoll lets a blocked signal in while it waits, restores the mask, and checks its time
#include "../check.h"

static volatile int handled;

static void handle(int number)
{
	(void)number;
	handled++;
}

int main(void)
{
	struct sigaction action = { .sa_handler = handle };
	struct timespec time = { 5, 0 }, none = { 0, 0 }, bad = { 0, -1 };
	sigset_t set, empty, mask;
	MUST(sigaction(SIGUSR1, &action, NULL));
	sigemptyset(&empty), sigemptyset(&set), sigaddset(&set, SIGUSR1);
	MUST(sigprocmask(SIG_BLOCK, &set, NULL));
	raise(SIGUSR1);
	VALUE(ppoll(NULL, 0, &none, &set));
	VALUE(handled);
	VALUE(ppoll(NULL, 0, &time, &empty));
	VALUE(handled);
	sigprocmask(SIG_BLOCK, NULL, &mask);
	HOLDS(sigismember(&mask, SIGUSR1));
	VALUE(ppoll(NULL, 0, &bad, NULL));
	return 0;
}
