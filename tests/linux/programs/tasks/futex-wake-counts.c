// calls: futex
// flags: FUTEX_WAKE FUTEX_WAKE_BITSET
// what: a wake-up returns how many it woke: none, as many as asked for, and only those with a common bit
#include "../check.h"
#include "../futex.h"

static int word, waiting, woken;

static void *wait_with_bit(void *argument)
{
	__atomic_add_fetch(&waiting, 1, __ATOMIC_SEQ_CST);
	if (syscall(SYS_futex, &word, FUTEX_WAIT_BITSET, 0, NULL, NULL, (int)(size_t)argument) == 0)
		__atomic_add_fetch(&woken, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

/* Wakes until `count` were woken: a thread may not have come to wait yet. */
static int wake(int count, int bits)
{
	int sum = 0;
	for (int round = 0; round < 500 && sum < count; round++) {
		sum += MUST(syscall(SYS_futex, &word, FUTEX_WAKE_BITSET, count - sum, NULL, NULL, bits));
		sleep_ms(sum < count ? 2 : 0);
	}
	return sum;
}

int main(void)
{
	pthread_t threads[5];
	VALUE(syscall(SYS_futex, &word, FUTEX_WAKE, 100));
	for (size_t index = 0; index < 5; index++)
		pthread_create(&threads[index], NULL, wait_with_bit, (void *)(index < 3 ? 1ul : 2ul));
	VALUE(wake(2, 2));
	VALUE(syscall(SYS_futex, &word, FUTEX_WAKE_BITSET, 100, NULL, NULL, 6));
	VALUE(wake(1, 1));
	VALUE(wake(2, 3));
	for (int index = 0; index < 5; index++)
		pthread_join(threads[index], NULL);
	VALUE(syscall(SYS_futex, &word, FUTEX_WAKE, 100));
	VALUE(woken);
	return 0;
}
