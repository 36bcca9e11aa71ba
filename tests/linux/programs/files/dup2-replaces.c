// calls: dup2 close
// flags: none
// what: dup2 closes what it replaces: the reader of a replaced pipe end sees the end of the stream
#include "../check.h"

int main(void)
{
	int channel[2];
	char byte;
	MUST(pipe(channel));
	int null = MUST(open("/dev/null", O_WRONLY));
	HOLDS(dup2(null, channel[1]) == channel[1]);
	VALUE(read(channel[0], &byte, 1));
	VALUE(write(channel[1], "x", 1));
	VALUE(close(channel[1]));
	VALUE(close(channel[1]));
	VALUE(close(-1));
	return 0;
}
