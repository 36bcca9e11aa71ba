// calls: fcntl
// flags: F_SETPIPE_SZ F_GETPIPE_SZ
// what: the capacity is 64 KiB, is rounded up when set, and cannot go below what is in the pipe
#include "../check.h"

int main(void)
{
	static char block[3 * PAGE];
	int channel[2];
	MUST(pipe2(channel, O_NONBLOCK));
	VALUE(fcntl(channel[0], F_GETPIPE_SZ));
	VALUE(fcntl(channel[0], F_SETPIPE_SZ, 100000));
	VALUE(fcntl(channel[1], F_GETPIPE_SZ));
	VALUE(fcntl(channel[1], F_SETPIPE_SZ, 1));
	MUST(fcntl(channel[1], F_SETPIPE_SZ, 16 * PAGE));
	VALUE(write(channel[1], block, 3 * PAGE));
	VALUE(fcntl(channel[1], F_SETPIPE_SZ, PAGE));
	VALUE(fcntl(channel[1], F_SETPIPE_SZ, 0));
	int file = MUST(memfd_create("file", 0));
	VALUE(fcntl(file, F_GETPIPE_SZ));
	return 0;
}
