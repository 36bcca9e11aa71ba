// calls: mmap mprotect clone
// flags: PROT_NONE
// what: a thread has the stack it asks for, and overflowing it is SIGSEGV
#include "../check.h"

static __attribute__((noinline)) size_t descend(int depth)
{
	volatile char frame[PAGE];
	frame[0] = (char)depth;
	frame[PAGE - 1] = 1;
	return depth == 0 ? 0 : descend(depth - 1) + frame[PAGE - 1];
}

static void *use_stack(void *argument)
{
	return (void *)descend((int)(size_t)argument);
}

int main(void)
{
	pthread_attr_t attributes;
	pthread_t thread;
	void *value;
	pthread_attr_init(&attributes);
	ANSWER(pthread_attr_setstacksize(&attributes, 1024 * PAGE));
	pthread_create(&thread, &attributes, use_stack, (void *)900);
	pthread_join(thread, &value);
	VALUE((size_t)value);
	pthread_create(&thread, &attributes, use_stack, (void *)2000);
	pthread_join(thread, &value);
	puts("not reached");
	return 0;
}
