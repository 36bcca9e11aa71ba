// calls: nanosleep clock_nanosleep setitimer
// flags: none
// what: a handler ends a sleep, which tells the time that was left
#include "../check.h"
#include <sys/time.h>

static void handle(int number)
{
	(void)number;
}

int main(void)
{
	struct sigaction action = { .sa_handler = handle, .sa_flags = SA_RESTART };
	struct itimerval timer = { .it_value = { 0, 20000 } };
	struct timespec time = { 5, 0 }, left = { 0, 0 };
	MUST(sigaction(SIGALRM, &action, NULL));
	MUST(setitimer(ITIMER_REAL, &timer, NULL));
	VALUE(nanosleep(&time, &left));
	HOLDS(left.tv_sec <= 4 && left.tv_sec >= 0 && left.tv_nsec < 1000000000);
	left.tv_sec = 77;
	MUST(setitimer(ITIMER_REAL, &timer, NULL));
	ANSWER(clock_nanosleep(CLOCK_MONOTONIC, 0, &time, &left));
	HOLDS(left.tv_sec <= 4);
	return 0;
}
