// calls: futex
// flags: FUTEX_WAIT FUTEX_PRIVATE_FLAG
// what: waiting for a word that holds another value is EAGAIN; bad addresses and operations have their errors
#include "../check.h"
#include "../futex.h"

int main(void)
{
	int word[2] = { 1, 0 };
	struct timespec bad = { 0, 1000000000 }, negative = { -1, 0 };
	VALUE(syscall(SYS_futex, word, FUTEX_WAIT, 2, NULL));
	VALUE(syscall(SYS_futex, word, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 2, NULL));
	VALUE(syscall(SYS_futex, (char *)word + 1, FUTEX_WAIT, 1, NULL));
	VALUE(syscall(SYS_futex, NULL, FUTEX_WAIT, 1, NULL));
	VALUE(syscall(SYS_futex, word, FUTEX_WAIT, 1, &bad));
	VALUE(syscall(SYS_futex, word, FUTEX_WAIT, 1, &negative));
	VALUE(syscall(SYS_futex, word, FUTEX_WAIT, 1, (void *)8));
	VALUE(syscall(SYS_futex, word, 99, 1, NULL));
	return 0;
}
