// calls: getrusage wait4
// flags: RUSAGE_SELF RUSAGE_CHILDREN RUSAGE_THREAD
// what: what children used is known once they were waited for
#include "../check.h"
#include <sys/resource.h>

int main(int count, char **arguments)
{
	struct rusage usage;
	int status;
	(void)arguments;
	if (count == 2) {
		volatile long sum = 0;
		clock_t start = clock();
		while (clock() - start < 20000)
			sum++;
		return 0;
	}
	VALUE(getrusage(RUSAGE_CHILDREN, &usage));
	HOLDS(usage.ru_utime.tv_sec == 0 && usage.ru_utime.tv_usec == 0);
	pid_t child = spawn_self("compute");
	HOLDS(wait4(child, &status, 0, &usage) == child);
	HOLDS(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec + 1000000 * usage.ru_utime.tv_sec >= 10000);
	VALUE(getrusage(RUSAGE_CHILDREN, &usage));
	HOLDS(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec + 1000000 * usage.ru_utime.tv_sec >= 10000);
	VALUE(getrusage(RUSAGE_THREAD, &usage));
	return 0;
}
