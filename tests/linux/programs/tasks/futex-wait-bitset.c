// calls: futex
// flags: FUTEX_WAIT_BITSET FUTEX_CLOCK_REALTIME
// what: WAIT_BITSET waits until a point in time, of either clock; a set without bits is EINVAL
#include "../check.h"
#include "../futex.h"

static void wait_until(clockid_t clock, int operation)
{
	int word = 1;
	struct timespec until;
	long start = now_ms();
	clock_gettime(clock, &until);
	until.tv_nsec += 20000000;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	VALUE(syscall(SYS_futex, &word, operation, 1, &until, NULL, ~0));
	HOLDS(now_ms() - start >= 19);
}

int main(void)
{
	int word = 1;
	struct timespec past = { 1, 0 };
	wait_until(CLOCK_MONOTONIC, FUTEX_WAIT_BITSET);
	wait_until(CLOCK_REALTIME, FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME);
	VALUE(syscall(SYS_futex, &word, FUTEX_WAIT_BITSET, 1, &past, NULL, ~0));
	VALUE(syscall(SYS_futex, &word, FUTEX_WAIT_BITSET, 1, NULL, NULL, 0));
	VALUE(syscall(SYS_futex, &word, FUTEX_WAIT_BITSET, 2, NULL, NULL, ~0));
	VALUE(syscall(SYS_futex, &word, FUTEX_WAKE_BITSET, 1, NULL, NULL, 0));
	return 0;
}
