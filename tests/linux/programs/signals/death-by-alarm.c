// calls: alarm pause
// flags: SIGALRM
// what: a timer that nobody handles ends the program
#include "../check.h"
#include <sys/time.h>

int main(void)
{
	struct itimerval timer = { .it_value = { 0, 10000 } };
	MUST(setitimer(ITIMER_REAL, &timer, NULL));
	puts("before");
	for (;;)
		pause();
}
