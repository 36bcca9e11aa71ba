// calls: clone arch_prctl
// flags: CLONE_SETTLS
// what: each thread has variables of its own, with their first values, and destructors of its keys run
#include "../check.h"

static __thread int own = 7;
static __thread char buffer[10000];
static pthread_key_t key;
static int destroyed, wrong;

static void destroy(void *value)
{
	__atomic_add_fetch(&destroyed, (int)(size_t)value, __ATOMIC_SEQ_CST);
}

static void *use(void *argument)
{
	if (own != 7 || buffer[9999] != 0 || pthread_getspecific(key) != NULL)
		__atomic_add_fetch(&wrong, 1, __ATOMIC_SEQ_CST);
	own = (int)(size_t)argument;
	buffer[9999] = 1;
	pthread_setspecific(key, argument);
	sched_yield();
	if (own != (int)(size_t)argument)
		__atomic_add_fetch(&wrong, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

int main(void)
{
	pthread_t threads[4];
	pthread_key_create(&key, destroy);
	for (size_t index = 0; index < 4; index++)
		pthread_create(&threads[index], NULL, use, (void *)(index + 1));
	for (int index = 0; index < 4; index++)
		pthread_join(threads[index], NULL);
	VALUE(own);
	VALUE(wrong);
	VALUE(destroyed);
	return 0;
}
