// calls: bind sendto recvfrom connect
// flags: SOCK_DGRAM
// what: datagrams between named sockets tell their sender; a name that is gone is ECONNREFUSED or ENOENT
#include "../network.h"

int main(void)
{
	struct sockaddr_un one, two, from;
	char text[16] = "";
	enter_own_folder();
	unix_address(&one, "one"), unix_address(&two, "two");
	int first = MUST(socket(AF_UNIX, SOCK_DGRAM, 0)), second = MUST(socket(AF_UNIX, SOCK_DGRAM, 0));
	MUST(bind(first, (struct sockaddr *)&one, sizeof one));
	MUST(bind(second, (struct sockaddr *)&two, sizeof two));
	VALUE(sendto(second, "hello", 5, 0, (struct sockaddr *)&one, sizeof one));
	socklen_t length = sizeof from;
	VALUE(recvfrom(first, text, 16, 0, (struct sockaddr *)&from, &length));
	printf("%s from %s\n", text, from.sun_path);
	int nameless = MUST(socket(AF_UNIX, SOCK_DGRAM, 0));
	VALUE(connect(nameless, (struct sockaddr *)&one, sizeof one));
	VALUE(send(nameless, "x", 1, 0));
	length = sizeof from;
	VALUE(recvfrom(first, text, 16, 0, (struct sockaddr *)&from, &length));
	VALUE(length);
	close(first);
	VALUE(send(nameless, "x", 1, 0));
	VALUE(sendto(second, "x", 1, 0, (struct sockaddr *)&one, sizeof one));
	unlink("one");
	VALUE(sendto(second, "x", 1, 0, (struct sockaddr *)&one, sizeof one));
	return 0;
}
