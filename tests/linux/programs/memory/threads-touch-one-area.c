// calls: mmap clone
// flags: none
// what: four threads that touch the same fresh pages lose no write
#include "../check.h"

enum { THREADS = 4, PAGES = 512 };
static char *area;

static void *touch(void *argument)
{
	size_t own = (size_t)argument;
	for (size_t page = 0; page < PAGES; page++)
		area[page * PAGE + own] = 1;
	return NULL;
}

int main(void)
{
	pthread_t threads[THREADS];
	size_t sum = 0;
	area = map_anonymous(PAGES * PAGE);
	for (size_t index = 0; index < THREADS; index++)
		pthread_create(&threads[index], NULL, touch, (void *)index);
	for (size_t index = 0; index < THREADS; index++)
		pthread_join(threads[index], NULL);
	for (size_t page = 0; page < PAGES; page++)
		for (size_t own = 0; own < THREADS; own++)
			sum += area[page * PAGE + own];
	HOLDS(sum == THREADS * PAGES);
	return 0;
}
