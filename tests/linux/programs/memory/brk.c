// calls: brk
// flags: none
// what: the break grows and shrinks; what comes back is zero; a break that cannot be is answered with the old one
#include "../check.h"

static char *set_break(char *to)
{
	return (char *)syscall(SYS_brk, to);
}

int main(void)
{
	char *start = set_break(NULL);
	HOLDS(start != NULL);
	char *end = start + 64 * PAGE;
	HOLDS(set_break(end) == end);
	HOLDS(end[-1] == 0);
	memset(start, 'x', end - start);
	HOLDS(set_break(start) == start);
	HOLDS(set_break(end) == end);
	HOLDS(end[-1] == 0 && start[PAGE] == 0);
	HOLDS(set_break(end + 5) == end + 5);
	HOLDS(set_break((char *)1) == end + 5);
	HOLDS(set_break((char *)-PAGE) == end + 5);
	HOLDS(set_break(start) == start);
	return 0;
}
