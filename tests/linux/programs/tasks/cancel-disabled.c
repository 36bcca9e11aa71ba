// calls: tgkill
// flags: none
// what: cancellation waits until it is enabled, and then happens at the next test
#include "../check.h"

static pthread_barrier_t barrier;
static int reached;

static void *hold_off(void *argument)
{
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	pthread_barrier_wait(&barrier);
	pthread_barrier_wait(&barrier);
	pthread_testcancel();
	reached = 1;
	pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
	pthread_testcancel();
	reached = 2;
	return argument;
}

int main(void)
{
	pthread_t thread;
	void *value;
	pthread_barrier_init(&barrier, NULL, 2);
	pthread_create(&thread, NULL, hold_off, NULL);
	pthread_barrier_wait(&barrier);
	pthread_cancel(thread);
	pthread_barrier_wait(&barrier);
	pthread_join(thread, &value);
	HOLDS(value == PTHREAD_CANCELED);
	VALUE(reached);
	return 0;
}
