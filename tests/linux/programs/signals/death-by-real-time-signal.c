// calls: tkill
// flags: SIGRTMIN
// what: a real-time signal without a handler ends the program with 128 and its number
#include "../check.h"

int main(void)
{
	puts("before");
	raise(SIGRTMIN + 5);
	puts("not reached");
	return 0;
}
