// calls: bind connect getsockname
// flags: AF_UNIX
// what: an abstract name is free again when its socket is closed; every byte of it counts
#include "../network.h"

int main(void)
{
	struct sockaddr_un address, found;
	char name[64];
	snprintf(name, sizeof name, "@spore-linux-%d", getpid());
	socklen_t length = unix_address(&address, name), found_length = sizeof found;
	int listener = MUST(socket(AF_UNIX, SOCK_STREAM, 0)), client = MUST(socket(AF_UNIX, SOCK_STREAM, 0));
	VALUE(bind(listener, (struct sockaddr *)&address, length));
	VALUE(listen(listener, 4));
	VALUE(getsockname(listener, (struct sockaddr *)&found, &found_length));
	HOLDS(found_length == length && memcmp(&found, &address, length) == 0);
	VALUE(connect(client, (struct sockaddr *)&address, length + 1));
	VALUE(connect(client, (struct sockaddr *)&address, length));
	int other = MUST(socket(AF_UNIX, SOCK_STREAM, 0));
	VALUE(bind(other, (struct sockaddr *)&address, length));
	close(listener);
	VALUE(bind(other, (struct sockaddr *)&address, length));
	int automatic = MUST(socket(AF_UNIX, SOCK_DGRAM, 0));
	VALUE(bind(automatic, (struct sockaddr *)&address, sizeof address.sun_family));
	found_length = sizeof found;
	MUST(getsockname(automatic, (struct sockaddr *)&found, &found_length));
	HOLDS(found_length == 8 && found.sun_path[0] == 0);
	return 0;
}
