// calls: alarm getitimer setitimer
// flags: ITIMER_REAL
// what: alarm and the real-time timer are one: each returns and replaces what the other set
#include "../check.h"
#include <sys/time.h>

int main(void)
{
	struct itimerval timer = { .it_value = { 50, 0 }, .it_interval = { 3, 0 } }, found;
	VALUE(alarm(100));
	HOLDS(alarm(0) >= 90);
	VALUE(alarm(0));
	MUST(setitimer(ITIMER_REAL, &timer, NULL));
	VALUE(getitimer(ITIMER_REAL, &found));
	HOLDS(found.it_value.tv_sec >= 40 && found.it_value.tv_sec <= 50 && found.it_interval.tv_sec == 3);
	HOLDS(alarm(0) >= 40);
	MUST(getitimer(ITIMER_REAL, &found));
	HOLDS(found.it_value.tv_sec == 0 && found.it_value.tv_usec == 0);
	VALUE(getitimer(9, &found));
	timer.it_value.tv_usec = 1000000;
	VALUE(setitimer(ITIMER_REAL, &timer, NULL));
	return 0;
}
