// calls: fsync fdatasync sync_file_range syncfs
// flags: none
// what: fsync and fdatasync succeed for files and folders; pipes are EINVAL, bad descriptors EBADF
#include "../check.h"

int main(void)
{
	int channel[2];
	enter_own_folder();
	write_file("data", "text");
	int file = MUST(open("data", O_RDWR)), folder = MUST(open(".", O_RDONLY));
	VALUE(fsync(file));
	VALUE(fdatasync(file));
	VALUE(fsync(folder));
	MUST(pipe(channel));
	VALUE(fsync(channel[1]));
	VALUE(fsync(1000));
	VALUE(fdatasync(MUST(open("data", O_RDONLY))));
	return 0;
}
