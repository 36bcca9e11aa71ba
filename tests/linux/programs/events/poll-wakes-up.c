// calls: poll write
// flags: none
// what: a poll that waits without limit ends when another thread writes
#include "../check.h"

static int channel[2];

static void *write_later(void *argument)
{
	sleep_ms(20);
	MUST(write(channel[1], "x", 1));
	return argument;
}

int main(void)
{
	pthread_t thread;
	MUST(pipe(channel));
	struct pollfd entry = { channel[0], POLLIN, 0 };
	pthread_create(&thread, NULL, write_later, NULL);
	VALUE(poll(&entry, 1, -1));
	HOLDS(entry.revents == POLLIN);
	pthread_join(thread, NULL);
	return 0;
}
