// calls: select
// flags: FD_SET
// what: select leaves the ready descriptors in its sets and counts each set; bad ones are EBADF
#include "../check.h"
#include <sys/select.h>

int main(void)
{
	int channel[2];
	fd_set readable, writable;
	struct timeval none = { 0, 0 }, some = { 0, 20000 }, negative = { -1, 0 };
	MUST(pipe(channel));
	FD_ZERO(&readable);
	FD_ZERO(&writable);
	FD_SET(channel[0], &readable);
	FD_SET(channel[1], &writable);
	VALUE(select(channel[1] + 1, &readable, &writable, NULL, &none));
	HOLDS(!FD_ISSET(channel[0], &readable) && FD_ISSET(channel[1], &writable));
	MUST(write(channel[1], "x", 1));
	FD_SET(channel[0], &readable);
	VALUE(select(channel[1] + 1, &readable, &writable, NULL, NULL));
	HOLDS(FD_ISSET(channel[0], &readable) && FD_ISSET(channel[1], &writable));
	long start = now_ms();
	VALUE(syscall(SYS_select, 0, NULL, NULL, NULL, &some)); /* the C library hides the time that is left */
	HOLDS(now_ms() - start >= 19);
	HOLDS(some.tv_sec == 0 && some.tv_usec == 0);
	VALUE(select(-1, NULL, NULL, NULL, &none));
	VALUE(select(0, NULL, NULL, NULL, &negative));
	FD_ZERO(&readable);
	FD_SET(50, &readable);
	VALUE(select(51, &readable, NULL, NULL, &none));
	return 0;
}
