// calls: eventfd2 read write
// flags: none
// what: a read waits until another thread writes, a write that would overflow until another reads
#include "../check.h"
#include <sys/eventfd.h>

static int counter;

static void *answer(void *argument)
{
	eventfd_t value;
	sleep_ms(15);
	if (argument)
		MUST(eventfd_read(counter, &value));
	else
		MUST(eventfd_write(counter, 7));
	return NULL;
}

int main(void)
{
	pthread_t thread;
	eventfd_t value;
	counter = MUST(eventfd(0, 0));
	pthread_create(&thread, NULL, answer, NULL);
	VALUE(eventfd_read(counter, &value));
	VALUE(value);
	pthread_join(thread, NULL);
	MUST(eventfd_write(counter, UINT64_MAX - 1));
	pthread_create(&thread, NULL, answer, &counter);
	VALUE(eventfd_write(counter, 5));
	pthread_join(thread, NULL);
	VALUE(eventfd_read(counter, &value));
	VALUE(value);
	return 0;
}
