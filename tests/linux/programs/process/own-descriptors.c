// calls: openat getdents64 readlink
// flags: none
// what: /proc/self/fd lists exactly the open descriptors and what they are
#include "../check.h"
#include <sys/socket.h>

int main(void)
{
	char link[64], target[128] = "";
	int channel[2], listed = 0, closed = 0;
	MUST(pipe(channel));
	MUST(dup2(channel[0], 200));
	DIR *folder = opendir("/proc/self/fd");
	HOLDS(folder != NULL);
	for (struct dirent *entry; (entry = readdir(folder));) {
		listed += entry->d_name[0] != '.';
		closed += entry->d_name[0] != '.' && fcntl(atoi(entry->d_name), F_GETFD) == -1;
	}
	HOLDS(listed >= 6);
	VALUE(closed);
	MUST(readlink("/proc/self/fd/200", target, sizeof target));
	HOLDS(strncmp(target, "pipe:[", 6) == 0);
	snprintf(link, sizeof link, "/proc/self/fd/%d", MUST(socket(AF_UNIX, SOCK_STREAM, 0)));
	MUST(readlink(link, target, sizeof target));
	HOLDS(strncmp(target, "socket:[", 8) == 0);
	MUST(close(200));
	VALUE(access("/proc/self/fd/200", F_OK));
	VALUE(access("/proc/self/fdinfo/1", F_OK));
	return 0;
}
