// calls: pipe pipe2 read write
// flags: O_CLOEXEC O_NONBLOCK
// what: bytes come out in order; the end comes when all writers are closed; ends work in one direction
#include "../check.h"

int main(void)
{
	int channel[2];
	char text[16] = "";
	VALUE(pipe(channel));
	VALUE(write(channel[1], "one", 3));
	VALUE(write(channel[1], "two", 3));
	VALUE(read(channel[0], text, 4));
	puts(text);
	VALUE(read(channel[0], text, 16));
	VALUE(write(channel[0], "x", 1));
	VALUE(read(channel[1], text, 1));
	int second = MUST(dup(channel[1]));
	close(channel[1]);
	VALUE(write(second, "last", 4));
	close(second);
	VALUE(read(channel[0], text, 16));
	VALUE(read(channel[0], text, 16));
	VALUE(pipe2(channel, 0x100));
	return 0;
}
