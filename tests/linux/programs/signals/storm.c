// calls: tgkill rt_sigaction rt_sigreturn futex
// flags: SA_RESTART SA_ONSTACK
// what: threads that compute with vector registers and lock mutexes stand a storm of signals from other threads
#include "../check.h"

enum { WORKERS = 4, SIGNALS = 2000 };

static pthread_t workers[WORKERS];
static int stop, handled, wrong;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static long counter;

static void handle(int number)
{
	double values[8];
	(void)number;
	for (int index = 0; index < 8; index++) /* spoil registers */
		values[index] = number * 1.5 + index;
	__asm__ volatile("movupd %0, %%xmm0; movupd %0, %%xmm7; movupd %0, %%xmm15" ::"m"(values) : "xmm0", "xmm7", "xmm15");
	__atomic_add_fetch(&handled, 1, __ATOMIC_SEQ_CST);
}

static void *work(void *argument)
{
	static __thread char stack[65536];
	stack_t alternate = { .ss_sp = stack, .ss_size = sizeof stack };
	long rounds = 0;
	sigaltstack(&alternate, NULL);
	while (!__atomic_load_n(&stop, __ATOMIC_SEQ_CST)) {
		uint64_t in[2] = { 0x0123456789abcdef ^ rounds, rounds }, out[2];
		uint64_t general = 0xfeedface ^ rounds, kept;
		__asm__ volatile("movdqu %2, %%xmm7\n\t"
						 "mov %3, %%r13\n\t"
						 "mov $300, %%ecx\n"
						 "1:\tdec %%ecx\n\t"
						 "jnz 1b\n\t"
						 "movdqu %%xmm7, %0\n\t"
						 "mov %%r13, %1"
						 : "=m"(out), "=r"(kept)
						 : "m"(in), "r"(general)
						 : "rcx", "r13", "xmm7", "memory");
		if (in[0] != out[0] || in[1] != out[1] || kept != general)
			__atomic_add_fetch(&wrong, 1, __ATOMIC_SEQ_CST);
		if (++rounds % 64 == 0) {
			pthread_mutex_lock(&mutex);
			counter++;
			pthread_mutex_unlock(&mutex);
		}
	}
	return argument;
}

int main(void)
{
	struct sigaction action = { .sa_handler = handle, .sa_flags = SA_RESTART | SA_ONSTACK };
	MUST(sigaction(SIGUSR1, &action, NULL));
	MUST(sigaction(SIGRTMIN + 1, &action, NULL));
	for (int index = 0; index < WORKERS; index++)
		pthread_create(&workers[index], NULL, work, NULL);
	for (int round = 0; round < SIGNALS; round++) {
		pthread_kill(workers[round % WORKERS], round % 3 ? SIGUSR1 : SIGRTMIN + 1);
		if (round % 50 == 0)
			sleep_ms(1);
	}
	sleep_ms(50);
	__atomic_store_n(&stop, 1, __ATOMIC_SEQ_CST);
	for (int index = 0; index < WORKERS; index++)
		pthread_join(workers[index], NULL);
	HOLDS(handled > SIGNALS / 3);
	VALUE(wrong);
	return 0;
}
