// calls: fstat fcntl lseek
// flags: none
// what: a pipe is a pipe to fstat, has access modes, and cannot be mapped, sought or synchronised
#include "../check.h"

int main(void)
{
	struct stat found;
	int channel[2];
	MUST(pipe(channel));
	MUST(fstat(channel[0], &found));
	HOLDS(S_ISFIFO(found.st_mode));
	HOLDS((fcntl(channel[0], F_GETFL) & O_ACCMODE) == O_RDONLY);
	HOLDS((fcntl(channel[1], F_GETFL) & O_ACCMODE) == O_WRONLY);
	VALUE(lseek(channel[0], 0, SEEK_CUR));
	VALUE(ftruncate(channel[1], 0));
	VALUE(fsync(channel[1]));
	OUTCOME(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, channel[0], 0));
	VALUE(write(channel[1], "", 0));
	VALUE(read(channel[0], &found, 0));
	return 0;
}
