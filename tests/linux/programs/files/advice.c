// calls: fadvise64 readahead
// flags: POSIX_FADV_SEQUENTIAL POSIX_FADV_WILLNEED POSIX_FADV_DONTNEED
// what: advice about a file is accepted; pipes are ESPIPE, unknown advice EINVAL
#include "../check.h"

int main(void)
{
	int channel[2];
	enter_own_folder();
	write_file("data", "text");
	int file = MUST(open("data", O_RDWR));
	ANSWER(posix_fadvise(file, 0, 0, POSIX_FADV_SEQUENTIAL));
	ANSWER(posix_fadvise(file, 0, 100, POSIX_FADV_WILLNEED));
	ANSWER(posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED));
	ANSWER(posix_fadvise(file, 0, 0, 99));
	MUST(pipe(channel));
	ANSWER(posix_fadvise(channel[0], 0, 0, POSIX_FADV_NORMAL));
	ANSWER(posix_fadvise(1000, 0, 0, POSIX_FADV_NORMAL));
	VALUE(readahead(file, 0, 100));
	show_file("data");
	return 0;
}
