// calls: vmsplice
// flags: none
// what: memory goes into a pipe and out of it again
#include "../check.h"

int main(void)
{
	int channel[2];
	char text[16] = "";
	struct iovec out[2] = { { "from ", 5 }, { "memory", 6 } };
	MUST(pipe(channel));
	VALUE(vmsplice(channel[1], out, 2, 0));
	VALUE(read(channel[0], text, 16));
	puts(text);
	VALUE(vmsplice(MUST(open("/dev/null", O_WRONLY)), out, 2, 0));
	VALUE(vmsplice(1000, out, 2, 0));
	return 0;
}
