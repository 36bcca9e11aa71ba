// calls: bind listen connect accept unlink
// flags: AF_UNIX
// what: a socket has a name in the file system, which stays until it is removed, and is found there
#include "../network.h"

int main(void)
{
	struct sockaddr_un address;
	struct stat found;
	char text[16] = "";
	enter_own_folder();
	socklen_t length = unix_address(&address, "socket");
	int listener = MUST(socket(AF_UNIX, SOCK_STREAM, 0)), client = MUST(socket(AF_UNIX, SOCK_STREAM, 0));
	VALUE(connect(client, (struct sockaddr *)&address, length));
	VALUE(bind(listener, (struct sockaddr *)&address, length));
	VALUE(connect(client, (struct sockaddr *)&address, length));
	VALUE(listen(listener, 4));
	MUST(stat("socket", &found));
	HOLDS(S_ISSOCK(found.st_mode));
	VALUE(connect(client, (struct sockaddr *)&address, length));
	int server = MUST(accept(listener, NULL, NULL));
	MUST(write(client, "found", 5));
	VALUE(read(server, text, 16));
	VALUE(bind(MUST(socket(AF_UNIX, SOCK_STREAM, 0)), (struct sockaddr *)&address, length));
	close(listener);
	VALUE(connect(MUST(socket(AF_UNIX, SOCK_STREAM, 0)), (struct sockaddr *)&address, length));
	VALUE(unlink("socket"));
	VALUE(write(server, "still", 5));
	unix_address(&address, "missing/socket");
	VALUE(bind(MUST(socket(AF_UNIX, SOCK_STREAM, 0)), (struct sockaddr *)&address, length));
	return 0;
}
