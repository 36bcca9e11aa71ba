// calls: tkill rt_sigaction
// flags: SIGABRT
// what: abort ends the program with SIGABRT, after a handler that returns as well
#include "../check.h"

static void handle(int number)
{
	puts(signal_name(number));
}

int main(void)
{
	signal(SIGABRT, handle);
	abort();
}
