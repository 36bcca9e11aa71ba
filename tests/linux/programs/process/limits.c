// calls: getrlimit setrlimit prlimit64
// flags: RLIMIT_NOFILE RLIMIT_STACK RLIMIT_AS RLIMIT_CORE
// what: limits are read and lowered; a soft limit above the hard one and unknown ones are EINVAL
#include "../check.h"
#include <sys/resource.h>

int main(void)
{
	struct rlimit limit, other;
	VALUE(getrlimit(RLIMIT_NOFILE, &limit));
	HOLDS(limit.rlim_cur >= 64 && limit.rlim_cur <= limit.rlim_max);
	limit.rlim_cur = 64;
	VALUE(setrlimit(RLIMIT_NOFILE, &limit));
	VALUE(prlimit(0, RLIMIT_NOFILE, NULL, &other));
	HOLDS(other.rlim_cur == 64 && other.rlim_max == limit.rlim_max);
	limit.rlim_cur = 65, limit.rlim_max = 64;
	VALUE(setrlimit(RLIMIT_NOFILE, &limit));
	VALUE(getrlimit(RLIMIT_STACK, &limit));
	HOLDS(limit.rlim_cur >= 1 << 20);
	VALUE(setrlimit(RLIMIT_STACK, &limit));
	limit = (struct rlimit){ 0, 0 };
	VALUE(setrlimit(RLIMIT_CORE, &limit));
	VALUE(getrlimit(RLIMIT_AS, &limit));
	VALUE(getrlimit(99, &limit));
	VALUE(syscall(SYS_prlimit64, 0x3ffffff, RLIMIT_NOFILE, NULL, &limit));
	VALUE(syscall(SYS_getrlimit, RLIMIT_NOFILE, 8));
	return 0;
}
