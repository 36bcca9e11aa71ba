// calls: tgkill read rt_sigaction
// flags: none
// what: a thread that blocks in a read is cancelled, its clean-up handlers run, and nothing was read
#include "../check.h"

static int channel[2], cleaned;

static void clean(void *argument)
{
	cleaned = (int)(size_t)argument;
}

static void *block(void *argument)
{
	char byte;
	pthread_cleanup_push(clean, (void *)5);
	if (read(channel[0], &byte, 1) == 1)
		puts("read something");
	pthread_cleanup_pop(0);
	return argument;
}

int main(void)
{
	pthread_t thread;
	void *value;
	MUST(pipe(channel));
	pthread_create(&thread, NULL, block, NULL);
	sleep_ms(20);
	ANSWER(pthread_cancel(thread));
	ANSWER(pthread_join(thread, &value));
	HOLDS(value == PTHREAD_CANCELED);
	VALUE(cleaned);
	return 0;
}
