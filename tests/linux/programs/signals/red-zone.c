// calls: rt_sigaction tgkill
// flags: none
// what: the 128 bytes below the stack pointer survive a handler
#include "../check.h"

static pthread_t main_thread;
static volatile int handled;
static int stop;

static void handle(int number)
{
	char scratch[512];
	(void)number;
	memset(scratch, 0x5a, sizeof scratch);
	__asm__ volatile("" ::"r"(scratch) : "memory"); /* the compiler must not leave it out */
	handled++;
}

static void *interrupt(void *argument)
{
	while (!__atomic_load_n(&stop, __ATOMIC_SEQ_CST)) {
		pthread_kill(main_thread, SIGUSR1);
		sleep_ms(1);
	}
	return argument;
}

int main(void)
{
	struct sigaction action = { .sa_handler = handle };
	pthread_t thread;
	long lost = 0;
	main_thread = pthread_self();
	MUST(sigaction(SIGUSR1, &action, NULL));
	pthread_create(&thread, NULL, interrupt, NULL);
	while (handled < 10) {
		long wrong = 0;
		/* Writes and reads the red zone 100,000 times; no instruction in between moves the stack pointer. */
		__asm__ volatile("mov $100000, %%ecx\n 1: mov %%rcx, -8(%%rsp)\n mov %%rcx, -128(%%rsp)\n"
						 "pause\n cmp %%rcx, -8(%%rsp)\n jne 2f\n cmp %%rcx, -128(%%rsp)\n je 3f\n"
						 "2: inc %0\n 3: dec %%ecx\n jnz 1b"
						 : "+r"(wrong)
						 :
						 : "rcx", "memory", "cc");
		lost += wrong;
	}
	__atomic_store_n(&stop, 1, __ATOMIC_SEQ_CST);
	pthread_join(thread, NULL);
	VALUE(lost);
	return 0;
}
