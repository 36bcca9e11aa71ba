// calls: openat readlink write mkdir
// flags: none
// what: /proc cannot be changed, knows no other process number, and files in it have no size
#include "../check.h"

int main(void)
{
	struct stat found;
	char path[64], target[32] = "";
	VALUE(mkdir("/proc/folder", 0755));
	OUTCOME(open("/proc/file", O_WRONLY | O_CREAT, 0644));
	VALUE(unlink("/proc/self/status"));
	OUTCOME(open("/proc/67108863", O_RDONLY));
	OUTCOME(open("/proc/self/missing", O_RDONLY));
	MUST(readlink("/proc/self", target, sizeof target));
	HOLDS(atoi(target) == getpid());
	snprintf(path, sizeof path, "/proc/%d/status", getpid());
	OUTCOME(open(path, O_RDONLY));
	MUST(stat("/proc/self/status", &found));
	HOLDS(S_ISREG(found.st_mode) && found.st_size == 0);
	MUST(stat("/proc/self", &found));
	HOLDS(S_ISDIR(found.st_mode));
	OUTCOME(open("/proc/self/status", O_WRONLY));
	OUTCOME(open("/proc/thread-self/status", O_RDONLY));
	return 0;
}
