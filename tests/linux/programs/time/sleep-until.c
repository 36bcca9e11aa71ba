// calls: clock_nanosleep
// flags: TIMER_ABSTIME
// what: a sleep until a point in time ends then, at once if it is past; an interrupted one tells no rest
#include "../check.h"
#include <sys/time.h>

static void handle(int number)
{
	(void)number;
}

int main(void)
{
	struct sigaction action = { .sa_handler = handle };
	struct itimerval timer = { .it_value = { 0, 20000 } };
	struct timespec past = { 1, 0 }, until, left = { 77, 77 };
	clock_gettime(CLOCK_MONOTONIC, &until);
	long start = now_ms();
	until.tv_nsec += 20000000;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	ANSWER(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL));
	HOLDS(now_ms() - start >= 19);
	ANSWER(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &past, NULL));
	ANSWER(clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &past, NULL));
	ANSWER(clock_nanosleep(99, 0, &past, NULL));
	ANSWER(clock_nanosleep(CLOCK_THREAD_CPUTIME_ID, 0, &past, NULL));
	MUST(sigaction(SIGALRM, &action, NULL));
	MUST(setitimer(ITIMER_REAL, &timer, NULL));
	until.tv_sec += 5;
	ANSWER(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, &left));
	HOLDS(left.tv_sec == 77 && left.tv_nsec == 77);
	return 0;
}
