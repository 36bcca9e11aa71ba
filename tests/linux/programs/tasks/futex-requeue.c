// calls: futex
// flags: FUTEX_REQUEUE FUTEX_CMP_REQUEUE
// what: waiters are moved from one word to another, and woken there; a changed word is EAGAIN
#include "../check.h"
#include "../futex.h"

static int from, to, woken;

static void *wait_at_from(void *argument)
{
	if (syscall(SYS_futex, &from, FUTEX_WAIT, 0, NULL) == 0)
		__atomic_add_fetch(&woken, 1, __ATOMIC_SEQ_CST);
	return argument;
}

int main(void)
{
	pthread_t threads[3];
	long moved = 0, released = 0;
	for (int index = 0; index < 3; index++)
		pthread_create(&threads[index], NULL, wait_at_from, NULL);
	VALUE(syscall(SYS_futex, &from, FUTEX_CMP_REQUEUE, 0, 100l, &to, 1)); /* another value */
	for (int round = 0; round < 500 && moved < 3; round++) {
		moved += MUST(syscall(SYS_futex, &from, FUTEX_CMP_REQUEUE, 0, 100l, &to, 0));
		sleep_ms(2);
	}
	VALUE(moved);
	VALUE(syscall(SYS_futex, &from, FUTEX_WAKE, 100));
	VALUE(syscall(SYS_futex, &to, FUTEX_REQUEUE, 1, 100l, &from)); /* one is woken, two go back */
	VALUE(syscall(SYS_futex, &to, FUTEX_WAKE, 100));
	released = syscall(SYS_futex, &from, FUTEX_WAKE, 100);
	VALUE(released);
	for (int index = 0; index < 3; index++)
		pthread_join(threads[index], NULL);
	VALUE(woken);
	return 0;
}
