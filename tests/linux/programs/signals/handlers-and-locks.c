// calls: futex tgkill
// flags: SA_RESTART
// what: a thread that waits for a mutex handles signals meanwhile and goes on waiting
#include "../check.h"

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static volatile int handled, got;

static void handle(int number)
{
	(void)number;
	handled++;
}

static void *lock(void *argument)
{
	pthread_mutex_lock(&mutex);
	got = 1;
	pthread_mutex_unlock(&mutex);
	return argument;
}

int main(void)
{
	struct sigaction action = { .sa_handler = handle };
	pthread_t thread;
	MUST(sigaction(SIGUSR1, &action, NULL));
	pthread_mutex_lock(&mutex);
	pthread_create(&thread, NULL, lock, NULL);
	while (handled < 3) {
		pthread_kill(thread, SIGUSR1);
		sleep_ms(2);
	}
	HOLDS(!got);
	pthread_mutex_unlock(&mutex);
	pthread_join(thread, NULL);
	HOLDS(got);
	return 0;
}
