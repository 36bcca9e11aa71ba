// calls: openat dup setrlimit pipe socket
// flags: RLIMIT_NOFILE
// what: at the limit of descriptors every call that makes one is EMFILE; dup2 beyond it EBADF
#include "../check.h"
#include <sys/resource.h>
#include <sys/socket.h>

int main(void)
{
	struct rlimit limit;
	int ends[2], last = 0;
	MUST(getrlimit(RLIMIT_NOFILE, &limit));
	limit.rlim_cur = 50;
	VALUE(setrlimit(RLIMIT_NOFILE, &limit));
	while (last != -1)
		last = open("/dev/null", O_RDONLY);
	puts(error_name(errno));
	VALUE(dup(1));
	VALUE(pipe(ends));
	VALUE(socket(AF_UNIX, SOCK_STREAM, 0));
	VALUE(fcntl(1, F_DUPFD, 0));
	VALUE(fcntl(1, F_DUPFD, 50));
	VALUE(dup2(1, 50));
	VALUE(dup2(1, 49));
	close(49);
	VALUE(pipe(ends));
	HOLDS(open("/dev/null", O_RDONLY) == 49);
	return 0;
}
