// calls: epoll_wait accept4 read write
// flags: EPOLLET EPOLLRDHUP
// what: a server with one epoll loop answers twenty clients at once, as nginx and Redis do
#include "../network.h"
#include <sys/epoll.h>

enum { CLIENTS = 20 };
static int port;

static void *ask(void *argument)
{
	char question[32], answer[32] = "";
	int client = tcp_connect(port);
	int length = snprintf(question, sizeof question, "question %d", (int)(size_t)argument);
	MUST(write(client, question, length));
	MUST(recv(client, answer, length, MSG_WAITALL));
	close(client);
	return (void *)(size_t)(strncmp(answer, "QUESTION", 8) == 0 && strcmp(answer + 8, question + 8) == 0);
}

int main(void)
{
	pthread_t threads[CLIENTS];
	struct epoll_event events[8], event = { .events = EPOLLIN };
	int listener = tcp_listener(), set = MUST(epoll_create1(0)), open_now = 0, finished = 0, right = 0;
	port = port_of(listener);
	event.data.fd = listener;
	MUST(epoll_ctl(set, EPOLL_CTL_ADD, listener, &event));
	for (size_t index = 0; index < CLIENTS; index++)
		pthread_create(&threads[index], NULL, ask, (void *)index);
	while (finished < CLIENTS) {
		int count = MUST(epoll_wait(set, events, 8, 5000));
		for (int index = 0; index < count; index++) {
			char text[32];
			int from = events[index].data.fd;
			if (from == listener) {
				event = (struct epoll_event){ .events = EPOLLIN | EPOLLRDHUP,
						.data.fd = MUST(accept4(listener, NULL, NULL, SOCK_NONBLOCK)) };
				MUST(epoll_ctl(set, EPOLL_CTL_ADD, event.data.fd, &event));
				open_now++;
				continue;
			}
			ssize_t length = MUST(read(from, text, sizeof text));
			for (int letter = 0; letter < length && letter < 8; letter++)
				text[letter] ^= 0x20;
			if (length > 0)
				MUST(write(from, text, length));
			else
				finished++, open_now--, close(from);
		}
	}
	for (int index = 0; index < CLIENTS; index++) {
		void *good;
		pthread_join(threads[index], &good);
		right += (int)(size_t)good;
	}
	VALUE(right);
	VALUE(open_now);
	return 0;
}
