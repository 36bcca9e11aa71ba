// calls: recvfrom
// flags: MSG_WAITALL
// what: MSG_WAITALL waits for the whole length, or for the end of the stream
#include "../network.h"

static int ends[2];

static void *send_in_parts(void *argument)
{
	for (int part = 0; part < 4; part++) {
		MUST(write(ends[0], &"abcd"[part], 1));
		sleep_ms(5);
	}
	shutdown(ends[0], SHUT_WR);
	return argument;
}

int main(void)
{
	pthread_t thread;
	char text[16] = "";
	tcp_pair(ends);
	pthread_create(&thread, NULL, send_in_parts, NULL);
	VALUE(recv(ends[1], text, 3, MSG_WAITALL));
	puts(text);
	VALUE(recv(ends[1], text, 16, MSG_WAITALL));
	printf("%.1s\n", text);
	pthread_join(thread, NULL);
	return 0;
}
