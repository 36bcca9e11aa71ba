// calls: setitimer timer_create timer_settime
// flags: ITIMER_REAL SIGEV_SIGNAL CLOCK_PROCESS_CPUTIME_ID CLOCK_THREAD_CPUTIME_ID
// what: timers interrupt a program that computes and makes no calls, whether they count time or time run
#include "../check.h"
#include <sys/time.h>

static volatile sig_atomic_t handled;

static void handle(int number)
{
	(void)number;
	handled++;
}

static void compute_until(int count)
{
	volatile unsigned long value = 1;
	for (unsigned long round = 0; round < 20000000000ul && handled < count; round++)
		value = value * 6364136223846793005ul + round;
}

static void run_timer(clockid_t clock, const char *name)
{
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1 };
	struct itimerspec times = { { 0, 5000000 }, { 0, 5000000 } }, none = { 0 };
	timer_t timer;
	handled = 0;
	MUST(timer_create(clock, &event, &timer));
	MUST(timer_settime(timer, 0, &times, NULL));
	compute_until(3);
	MUST(timer_settime(timer, 0, &none, NULL));
	printf("%s: %s\n", name, handled >= 3 ? "interrupted" : "not interrupted");
	MUST(timer_delete(timer));
}

int main(void)
{
	struct sigaction action = { .sa_handler = handle };
	struct itimerval every = { { 0, 5000 }, { 0, 5000 } }, none = { 0 };
	MUST(sigaction(SIGALRM, &action, NULL));
	MUST(sigaction(SIGUSR1, &action, NULL));
	MUST(sigaction(SIGPROF, &action, NULL));
	MUST(setitimer(ITIMER_REAL, &every, NULL));
	compute_until(3);
	HOLDS(handled >= 3);
	MUST(setitimer(ITIMER_REAL, &none, NULL));
	handled = 0;
	MUST(setitimer(ITIMER_PROF, &every, NULL));
	compute_until(3);
	HOLDS(handled >= 3);
	MUST(setitimer(ITIMER_PROF, &none, NULL));
	run_timer(CLOCK_MONOTONIC, "monotonic");
	run_timer(CLOCK_PROCESS_CPUTIME_ID, "process");
	run_timer(CLOCK_THREAD_CPUTIME_ID, "thread");
	return 0;
}
