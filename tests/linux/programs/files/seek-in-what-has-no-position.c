// calls: lseek pread64 pwrite64
// flags: none
// what: pipes and sockets are ESPIPE; /dev/null and /dev/zero accept any position
#include "../check.h"
#include <sys/socket.h>

int main(void)
{
	int channel[2], ends[2];
	char byte;
	MUST(pipe(channel));
	MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
	VALUE(lseek(channel[0], 0, SEEK_CUR));
	VALUE(pread(channel[0], &byte, 1, 0));
	VALUE(pwrite(channel[1], "x", 1, 0));
	VALUE(lseek(ends[0], 0, SEEK_CUR));
	VALUE(pread(ends[0], &byte, 1, 0));
	OUTCOME(lseek(MUST(open("/dev/null", O_RDWR)), 0, SEEK_SET));
	OUTCOME(lseek(MUST(open("/dev/zero", O_RDWR)), 0, SEEK_SET));
	return 0;
}
