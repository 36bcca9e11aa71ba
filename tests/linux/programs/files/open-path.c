// calls: openat fstat fchdir dup
// flags: O_PATH AT_EMPTY_PATH
// what: an O_PATH descriptor names a file but cannot read, write or change it
#include "../check.h"

int main(void)
{
	struct stat found;
	char byte;
	enter_own_folder();
	write_file("data", "text");
	int file = MUST(open("data", O_PATH)), folder = MUST(open(".", O_PATH | O_DIRECTORY));
	VALUE(read(file, &byte, 1));
	VALUE(write(file, "x", 1));
	VALUE(lseek(file, 0, SEEK_SET));
	VALUE(fchmod(file, 0600));
	VALUE(ftruncate(file, 0));
	VALUE(fstat(file, &found));
	VALUE(fstatat(file, "", &found, AT_EMPTY_PATH));
	VALUE(found.st_size);
	HOLDS((fcntl(file, F_GETFL) & O_PATH) != 0);
	OUTCOME(openat(folder, "data", O_RDONLY));
	VALUE(fchdir(folder));
	OUTCOME(dup(file));
	return 0;
}
