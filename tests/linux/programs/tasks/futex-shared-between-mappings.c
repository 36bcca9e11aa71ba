// calls: futex memfd_create mmap
// flags: MAP_SHARED FUTEX_WAIT FUTEX_WAKE
// what: a shared futex is found through another mapping of the same memory
#include "../check.h"
#include "../futex.h"

static int *one, *other;

static void *wait_there(void *argument)
{
	while (__atomic_load_n(one, __ATOMIC_SEQ_CST) == 0)
		syscall(SYS_futex, one, FUTEX_WAIT, 0, NULL);
	return argument;
}

int main(void)
{
	pthread_t thread;
	int file = MUST(memfd_create("futex", 0));
	MUST(ftruncate(file, PAGE));
	one = MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0));
	other = MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0));
	pthread_create(&thread, NULL, wait_there, NULL);
	long woken = 0;
	for (int round = 0; round < 500 && woken == 0; round++) {
		woken = MUST(syscall(SYS_futex, other, FUTEX_WAKE, 1));
		sleep_ms(1);
	}
	VALUE(woken);
	__atomic_store_n(other, 1, __ATOMIC_SEQ_CST);
	MUST(syscall(SYS_futex, other, FUTEX_WAKE, 1));
	pthread_join(thread, NULL);
	return 0;
}
