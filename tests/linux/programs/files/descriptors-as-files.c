// calls: openat readlink
// flags: none
// what: /dev/fd and /proc/self/fd open a file anew by its descriptor; links tell its path
#include "../check.h"

int main(void)
{
	char path[64], target[128] = "", folder[128], text[8] = "";
	enter_own_folder();
	write_file("data", "0123456789");
	int file = MUST(open("data", O_RDWR));
	MUST(lseek(file, 5, SEEK_SET));
	snprintf(path, sizeof path, "/proc/self/fd/%d", file);
	MUST(readlink(path, target, sizeof target - 1));
	HOLDS(strcmp(target, strcat(getcwd(folder, sizeof folder - 8), "/data")) == 0);
	int again = MUST(open(path, O_RDONLY));
	VALUE(read(again, text, 4));
	puts(text);
	snprintf(path, sizeof path, "/dev/fd/%d", file);
	OUTCOME(open(path, O_RDONLY));
	OUTCOME(open("/dev/stdout", O_WRONLY | O_PATH));
	OUTCOME(open("/proc/self/fd/1000", O_RDONLY));
	MUST(unlink("data"));
	snprintf(path, sizeof path, "/proc/self/fd/%d", file);
	OUTCOME(open(path, O_RDONLY));
	memset(target, 0, sizeof target);
	MUST(readlink(path, target, sizeof target - 1));
	HOLDS(strstr(target, "/data (deleted)") != NULL);
	return 0;
}
