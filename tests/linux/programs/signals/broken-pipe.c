// calls: write rt_sigaction
// flags: MSG_NOSIGNAL
// what: writing where nobody reads is SIGPIPE and EPIPE; ignored or suppressed, EPIPE alone
#include "../check.h"
#include <sys/socket.h>

static volatile int handled;

static void handle(int number)
{
	handled = number;
}

int main(void)
{
	struct sigaction action = { .sa_handler = handle };
	int channel[2], ends[2];
	MUST(pipe(channel));
	MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
	close(channel[0]), close(ends[0]);
	MUST(sigaction(SIGPIPE, &action, NULL));
	VALUE(write(channel[1], "x", 1));
	HOLDS(handled == SIGPIPE);
	handled = 0;
	VALUE(send(ends[1], "x", 1, MSG_NOSIGNAL));
	HOLDS(handled == 0);
	VALUE(send(ends[1], "x", 1, 0));
	HOLDS(handled == SIGPIPE);
	signal(SIGPIPE, SIG_IGN);
	VALUE(write(channel[1], "x", 1));
	signal(SIGPIPE, SIG_DFL);
	puts("the default action follows");
	VALUE(write(channel[1], "x", 1));
	return 0;
}
