// calls: setitimer
// flags: ITIMER_VIRTUAL ITIMER_PROF
// what: the timers of processor time run out while a program computes
#include "../check.h"
#include <sys/time.h>

static volatile int received;

static void handle(int number)
{
	received = number;
}

static void compute_until_signal(int which)
{
	struct itimerval timer = { .it_value = { 0, 10000 } };
	volatile long sum = 0;
	received = 0;
	MUST(setitimer(which, &timer, NULL));
	while (!received)
		sum++;
	puts(signal_name(received));
}

int main(void)
{
	struct sigaction action = { .sa_handler = handle };
	MUST(sigaction(SIGVTALRM, &action, NULL));
	MUST(sigaction(SIGPROF, &action, NULL));
	compute_until_signal(ITIMER_VIRTUAL);
	compute_until_signal(ITIMER_PROF);
	return 0;
}
