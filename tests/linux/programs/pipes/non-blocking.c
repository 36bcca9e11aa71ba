// calls: pipe2 read write
// flags: O_NONBLOCK
// what: an empty pipe is EAGAIN to read, a full one to write; a large write is cut, a small one is whole or not at all
#include "../check.h"

int main(void)
{
	static char block[PAGE];
	int channel[2];
	long sum = 0, written;
	MUST(pipe2(channel, O_NONBLOCK));
	VALUE(read(channel[0], block, 1));
	while ((written = write(channel[1], block, PAGE)) > 0)
		sum += written;
	puts(error_name(errno));
	HOLDS(sum == fcntl(channel[1], F_GETPIPE_SZ));
	VALUE(write(channel[1], block, 1));
	VALUE(read(channel[0], block, PAGE - 1));
	VALUE(write(channel[1], block, PAGE));
	VALUE(read(channel[0], block, 1));
	VALUE(write(channel[1], block, PAGE));
	static char large[3 * PAGE];
	VALUE(read(channel[0], large, 2 * PAGE));
	VALUE(write(channel[1], large, 3 * PAGE));
	return 0;
}
