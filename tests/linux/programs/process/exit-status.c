// calls: exit_group
// flags: none
// what: only the low eight bits of the exit status are told, after atexit handlers ran in reverse
#include "../check.h"

static void first(void)
{
	puts("registered first");
}

static void second(void)
{
	puts("registered second");
}

int main(void)
{
	atexit(first);
	atexit(second);
	exit(0x1234);
}
