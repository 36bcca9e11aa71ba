// calls: memfd_create read write fstat
// flags: MFD_CLOEXEC
// what: a memory file is read, written and cut as any file, has no name, and is closed on exec if asked for
#include "../check.h"

int main(void)
{
	struct stat found;
	char text[8] = "", name[300];
	int file = MUST(memfd_create("memory", MFD_CLOEXEC));
	VALUE(fcntl(file, F_GETFD));
	VALUE(write(file, "content", 7));
	VALUE(lseek(file, 0, SEEK_SET));
	VALUE(read(file, text, 7));
	puts(text);
	MUST(fstat(file, &found));
	HOLDS(S_ISREG(found.st_mode) && found.st_size == 7 && found.st_nlink == 0);
	VALUE(ftruncate(file, 3));
	VALUE(lseek(file, 0, SEEK_END));
	memset(name, 'n', sizeof name);
	name[249] = 0;
	OUTCOME(memfd_create(name, 0));
	name[249] = 'n', name[250] = 0;
	OUTCOME(memfd_create(name, 0));
	OUTCOME(memfd_create("x", 0x1000));
	return 0;
}
