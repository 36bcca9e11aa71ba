// calls: shutdown accept recvfrom
// flags: SHUT_RDWR
// what: shutting down a socket ends what other threads wait for in it
#include "../network.h"

static int listener, ends[2];

static void *wait_in_accept(void *argument)
{
	VALUE(accept(listener, NULL, NULL));
	return argument;
}

static void *wait_in_recv(void *argument)
{
	char byte;
	VALUE(recv(ends[0], &byte, 1, 0));
	return argument;
}

int main(void)
{
	pthread_t thread;
	listener = tcp_listener();
	tcp_pair(ends);
	pthread_create(&thread, NULL, wait_in_accept, NULL);
	sleep_ms(20); /* the answer is the same if it does not wait yet */
	MUST(shutdown(listener, SHUT_RDWR));
	pthread_join(thread, NULL);
	pthread_create(&thread, NULL, wait_in_recv, NULL);
	sleep_ms(20);
	MUST(shutdown(ends[0], SHUT_RDWR));
	pthread_join(thread, NULL);
	return 0;
}
