// calls: read tgkill rt_sigaction
// flags: SA_RESTART
// what: a read that a handler interrupts is EINTR without SA_RESTART, and goes on with it
#include "../check.h"

static int channel[2];
static pthread_t main_thread;
static volatile int handled;
static int done;

static void handle(int number)
{
	(void)number;
	handled = 1;
}

static void *interrupt(void *argument)
{
	for (int round = 0; !__atomic_load_n(&done, __ATOMIC_SEQ_CST); round++) {
		pthread_kill(main_thread, SIGUSR1);
		sleep_ms(5); /* main may not be in its read yet, so there are more signals */
		if (argument && round == 4)
			MUST(write(channel[1], "x", 1));
	}
	return NULL;
}

static void run(int flags)
{
	struct sigaction action = { .sa_handler = handle, .sa_flags = flags };
	pthread_t thread;
	char byte;
	MUST(sigaction(SIGUSR1, &action, NULL));
	__atomic_store_n(&done, 0, __ATOMIC_SEQ_CST);
	handled = 0;
	pthread_create(&thread, NULL, interrupt, flags & SA_RESTART ? &action : NULL);
	VALUE(read(channel[0], &byte, 1));
	__atomic_store_n(&done, 1, __ATOMIC_SEQ_CST);
	pthread_join(thread, NULL);
	HOLDS(handled);
}

int main(void)
{
	main_thread = pthread_self();
	MUST(pipe(channel));
	run(SA_RESTART);
	run(0);
	return 0;
}
