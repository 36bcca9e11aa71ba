// calls: socket bind listen connect accept4 read write close
// flags: SOCK_STREAM
// what: a connection over the loopback carries bytes both ways until both ends are closed
#include "../network.h"

int main(void)
{
	int ends[2];
	char text[16] = "";
	tcp_pair(ends);
	VALUE(write(ends[0], "question", 8));
	VALUE(read(ends[1], text, 16));
	puts(text);
	VALUE(write(ends[1], "answer", 6));
	VALUE(read(ends[0], text, 3));
	VALUE(read(ends[0], text + 3, 16 - 3));
	printf("%.6s\n", text);
	VALUE(close(ends[0]));
	VALUE(read(ends[1], text, 16));
	VALUE(close(ends[1]));
	return 0;
}
