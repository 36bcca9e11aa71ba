// calls: tee
// flags: SPLICE_F_NONBLOCK
// what: tee copies what is in a pipe to another one without taking it
#include "../check.h"

int main(void)
{
	int one[2], two[2];
	char text[16] = "";
	MUST(pipe(one)), MUST(pipe(two));
	MUST(write(one[1], "content", 7));
	VALUE(tee(one[0], two[1], 100, 0));
	VALUE(read(two[0], text, 16));
	puts(text);
	memset(text, 0, sizeof text);
	VALUE(tee(one[0], two[1], 3, 0));
	VALUE(read(one[0], text, 16));
	puts(text);
	VALUE(tee(one[0], two[1], 100, SPLICE_F_NONBLOCK));
	VALUE(tee(one[0], one[1], 100, SPLICE_F_NONBLOCK));
	VALUE(tee(one[0], MUST(open("/dev/null", O_WRONLY)), 1, 0));
	return 0;
}
