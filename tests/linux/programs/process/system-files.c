// calls: openat read
// flags: none
// what: files below /proc and /sys that runtimes read at start are there and make sense
#include "../check.h"

static bool has_line(const char *path, const char *start)
{
	char line[2048];
	bool found = false;
	FILE *file = fopen(path, "r");
	while (file && fgets(line, sizeof line, file))
		found |= strncmp(line, start, strlen(start)) == 0;
	if (file)
		fclose(file);
	return found;
}

static long number_in(const char *path)
{
	long number = -1;
	FILE *file = fopen(path, "r");
	if (file && fscanf(file, "%ld", &number) != 1)
		number = -1;
	if (file)
		fclose(file);
	return number;
}

int main(void)
{
	HOLDS(has_line("/proc/meminfo", "MemTotal:"));
	HOLDS(has_line("/proc/meminfo", "MemFree:"));
	HOLDS(has_line("/proc/meminfo", "MemAvailable:"));
	HOLDS(has_line("/proc/meminfo", "SwapTotal:"));
	HOLDS(has_line("/proc/cpuinfo", "processor\t: 0"));
	HOLDS(has_line("/proc/cpuinfo", "flags\t"));
	HOLDS(has_line("/proc/stat", "cpu "));
	HOLDS(has_line("/proc/version", "Linux version "));
	HOLDS(number_in("/proc/uptime") >= 0);
	HOLDS(number_in("/proc/loadavg") >= 0);
	HOLDS(has_line("/proc/filesystems", "nodev\tproc"));
	HOLDS(has_line("/proc/sys/kernel/ostype", "Linux"));
	HOLDS(number_in("/proc/sys/kernel/pid_max") > 0);
	HOLDS(number_in("/proc/sys/vm/overcommit_memory") >= 0);
	HOLDS(number_in("/proc/sys/vm/max_map_count") > 0);
	HOLDS(number_in("/proc/sys/net/core/somaxconn") > 0);
	HOLDS(number_in("/proc/sys/fs/pipe-max-size") >= 65536);
	HOLDS(has_line("/sys/devices/system/cpu/online", "0"));
	return 0;
}
