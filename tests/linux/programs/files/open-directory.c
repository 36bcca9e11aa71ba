// calls: openat read write
// flags: O_DIRECTORY
// what: O_DIRECTORY refuses files; folders are opened for reading only and cannot be read as files
#include "../check.h"

int main(void)
{
	char byte;
	enter_own_folder();
	write_file("data", "text");
	MUST(mkdir("folder", 0755));
	OUTCOME(open("folder", O_RDONLY | O_DIRECTORY));
	OUTCOME(open("data", O_RDONLY | O_DIRECTORY));
	OUTCOME(open("missing", O_RDONLY | O_DIRECTORY));
	OUTCOME(open("folder", O_RDWR));
	OUTCOME(open("folder", O_WRONLY));
	OUTCOME(open("folder", O_RDONLY | O_CREAT, 0644));
	int folder = MUST(open("folder", O_RDONLY));
	VALUE(read(folder, &byte, 1));
	VALUE(write(folder, "x", 1));
	VALUE(ftruncate(folder, 0));
	return 0;
}
