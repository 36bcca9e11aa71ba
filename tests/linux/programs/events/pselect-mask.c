// calls: pselect6
// flags: none
// what: pselect lets a blocked signal in while it waits and leaves the time it was given
#include "../check.h"
#include <sys/select.h>

static volatile int handled;

static void handle(int number)
{
	(void)number;
	handled++;
}

int main(void)
{
	struct sigaction action = { .sa_handler = handle };
	struct timespec time = { 5, 0 }, some = { 0, 10000000 };
	sigset_t set, empty, mask;
	MUST(sigaction(SIGUSR1, &action, NULL));
	sigemptyset(&empty), sigemptyset(&set), sigaddset(&set, SIGUSR1);
	MUST(sigprocmask(SIG_BLOCK, &set, NULL));
	raise(SIGUSR1);
	VALUE(pselect(0, NULL, NULL, NULL, &time, &empty));
	VALUE(handled);
	sigprocmask(SIG_BLOCK, NULL, &mask);
	HOLDS(sigismember(&mask, SIGUSR1));
	VALUE(pselect(0, NULL, NULL, NULL, &some, NULL));
	HOLDS(some.tv_nsec == 10000000);
	return 0;
}
