// calls: write read
// flags: none
// what: 8 MiB pass a connection in order, slower than they are written
#include "../network.h"

enum { LENGTH = 8 << 20 };
static int ends[2];
static unsigned char out[LENGTH], in[LENGTH];

static void *send_all(void *argument)
{
	for (size_t sent = 0; sent < LENGTH;)
		sent += MUST(write(ends[0], out + sent, LENGTH - sent));
	close(ends[0]);
	return argument;
}

int main(void)
{
	pthread_t thread;
	size_t got = 0;
	for (size_t index = 0; index < LENGTH; index++)
		out[index] = (unsigned char)(index * index >> 7);
	tcp_pair(ends);
	pthread_create(&thread, NULL, send_all, NULL);
	for (ssize_t length; (length = read(ends[1], in + got, LENGTH - got)) > 0;)
		got += length;
	pthread_join(thread, NULL);
	VALUE(got);
	HOLDS(memcmp(in, out, LENGTH) == 0);
	return 0;
}
