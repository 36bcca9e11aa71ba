// calls: accept connect
// flags: none
// what: accept waits for a client that comes later
#include "../network.h"

static int port;

static void *come(void *argument)
{
	sleep_ms(15);
	int client = tcp_connect(port);
	MUST(write(client, "late", 4));
	close(client);
	return argument;
}

int main(void)
{
	pthread_t thread;
	char text[8] = "";
	int listener = tcp_listener();
	port = port_of(listener);
	pthread_create(&thread, NULL, come, NULL);
	int server = MUST(accept(listener, NULL, NULL));
	VALUE(recv(server, text, 8, 0));
	puts(text);
	pthread_join(thread, NULL);
	return 0;
}
