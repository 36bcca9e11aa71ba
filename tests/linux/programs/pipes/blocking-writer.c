// calls: write read
// flags: none
// what: a write larger than the pipe waits until all of it was read
#include "../check.h"

enum { LENGTH = 1 << 20 };
static char out[LENGTH], in[LENGTH];
static int channel[2];

static void *write_all(void *argument)
{
	VALUE(write(channel[1], out, LENGTH));
	close(channel[1]);
	return argument;
}

int main(void)
{
	pthread_t thread;
	size_t got = 0;
	for (int index = 0; index < LENGTH; index++)
		out[index] = (char)(index * 7);
	MUST(pipe(channel));
	pthread_create(&thread, NULL, write_all, NULL);
	for (ssize_t length; (length = read(channel[0], in + got, 10000)) > 0;)
		got += length;
	pthread_join(thread, NULL);
	VALUE(got);
	HOLDS(memcmp(in, out, LENGTH) == 0);
	return 0;
}
