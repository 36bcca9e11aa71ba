// calls: openat read
// flags: none
// what: /proc/self/stat and status tell the number, name, threads and memory of the process
#include "../check.h"

static bool has_line(const char *path, const char *start)
{
	char line[512];
	bool found = false;
	FILE *file = fopen(path, "r");
	while (file && fgets(line, sizeof line, file))
		found |= strncmp(line, start, strlen(start)) == 0;
	if (file)
		fclose(file);
	return found;
}

int main(void)
{
	char text[1024] = "", name[64], state, expected[64];
	int pid = 0;
	int file = MUST(open("/proc/self/stat", O_RDONLY));
	HOLDS(read(file, text, sizeof text - 1) > 0);
	HOLDS(sscanf(text, "%d (%63[^)]) %c", &pid, name, &state) == 3 && pid == getpid() && state == 'R');
	int fields = 0;
	for (char *at = strrchr(text, ')'); *at; at++)
		fields += *at == ' ';
	HOLDS(fields >= 40);
	const char *starts[] = { "Name:\t", "State:\tR", "VmSize:\t", "VmRSS:\t", "Threads:\t1", "SigCgt:\t", "Uid:\t0" };
	for (int index = 0; index < 7; index++)
		printf("%s: %s\n", starts[index], has_line("/proc/self/status", starts[index]) ? "yes" : "no");
	snprintf(expected, sizeof expected, "Pid:\t%d\n", getpid());
	HOLDS(has_line("/proc/self/status", expected));
	long size = 0, resident = 0;
	FILE *memory = fopen("/proc/self/statm", "r");
	HOLDS(memory && fscanf(memory, "%ld %ld", &size, &resident) == 2 && size > 0 && resident > 0);
	return 0;
}
