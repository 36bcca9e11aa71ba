// calls: write read
// flags: PIPE_BUF
// what: writes of up to PIPE_BUF bytes from several threads never mix
#include "../check.h"
#include <limits.h>

enum { WRITERS = 4, ROUNDS = 50, LENGTH = 1000 };
static int channel[2];

static void *write_blocks(void *argument)
{
	char block[LENGTH];
	memset(block, 'a' + (int)(size_t)argument, LENGTH);
	for (int round = 0; round < ROUNDS; round++)
		MUST(write(channel[1], block, LENGTH));
	return NULL;
}

int main(void)
{
	pthread_t threads[WRITERS];
	char block[LENGTH];
	int mixed = 0;
	MUST(pipe(channel));
	for (size_t index = 0; index < WRITERS; index++)
		pthread_create(&threads[index], NULL, write_blocks, (void *)index);
	for (int round = 0; round < WRITERS * ROUNDS; round++) {
		for (size_t got = 0; got < LENGTH;)
			got += MUST(read(channel[0], block + got, LENGTH - got));
		for (int index = 1; index < LENGTH; index++)
			mixed += block[index] != block[0];
	}
	for (int index = 0; index < WRITERS; index++)
		pthread_join(threads[index], NULL);
	VALUE(mixed);
	VALUE(PIPE_BUF);
	return 0;
}
