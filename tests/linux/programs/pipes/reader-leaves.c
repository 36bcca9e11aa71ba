// calls: write close
// flags: SIGPIPE
// what: a writer that waits in a full pipe gets EPIPE when the reader closes
#include "../check.h"
#include <sys/ioctl.h>

static int channel[2];

static void *leave(void *argument)
{
	for (int held = 0; held < 65536; sleep_ms(1))
		MUST(ioctl(channel[0], FIONREAD, &held)); /* until the pipe is full */
	close(channel[0]);
	return argument;
}

int main(void)
{
	static char block[1 << 20];
	pthread_t thread;
	signal(SIGPIPE, SIG_IGN);
	MUST(pipe(channel));
	pthread_create(&thread, NULL, leave, NULL);
	VALUE(write(channel[1], block, sizeof block));
	VALUE(write(channel[1], block, 1));
	pthread_join(thread, NULL);
	return 0;
}
