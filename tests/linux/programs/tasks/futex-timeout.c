// calls: futex
// flags: FUTEX_WAIT
// what: a wait that nobody ends is ETIMEDOUT after its time and not before, at once for a time of 0
#include "../check.h"
#include "../futex.h"

int main(void)
{
	int word = 1;
	struct timespec none = { 0, 0 }, some = { 0, 30000000 };
	VALUE(syscall(SYS_futex, &word, FUTEX_WAIT, 1, &none));
	long start = now_ms();
	VALUE(syscall(SYS_futex, &word, FUTEX_WAIT, 1, &some));
	HOLDS(now_ms() - start >= 29);
	VALUE(syscall(SYS_futex, &word, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 1, &some));
	return 0;
}
