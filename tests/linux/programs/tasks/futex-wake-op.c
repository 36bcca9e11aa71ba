// calls: futex
// flags: FUTEX_WAKE_OP
// what: WAKE_OP changes the second word by set, add, or, and-not and xor, and wakes nobody where nobody waits
#include "../check.h"
#include "../futex.h"

static int first, second;

static void change(int operation, int operand, const char *what)
{
	int encoded = operation << 28 | 0 << 24 | operand << 12 | 0;
	long woken = syscall(SYS_futex, &first, FUTEX_WAKE_OP, 1, 1l, &second, encoded);
	printf("%s: woken %ld, word %d\n", what, woken, second);
}

int main(void)
{
	change(0, 5, "set 5");
	change(1, 7, "add 7");
	change(2, 3, "or 3");
	change(3, 1, "and not 1");
	change(4, 15, "xor 15");
	change(8 | 0, 4, "set 1 << 4");
	VALUE(syscall(SYS_futex, &first, FUTEX_WAKE_OP, 1, 1l, NULL, 0));
	return 0;
}
