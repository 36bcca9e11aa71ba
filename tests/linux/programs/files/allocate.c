// calls: fallocate
// flags: FALLOC_FL_KEEP_SIZE
// what: space is allocated with and without changing the size; lengths of 0 and readers are errors
#include "../check.h"

static void show_size(int file)
{
	struct stat found;
	MUST(fstat(file, &found));
	printf("size: %ld, has blocks: %s\n", (long)found.st_size, found.st_blocks > 0 ? "yes" : "no");
}

int main(void)
{
	int channel[2];
	enter_own_folder();
	int file = MUST(open("data", O_RDWR | O_CREAT, 0644)), reader = MUST(open("data", O_RDONLY));
	VALUE(fallocate(file, 0, 0, 10000));
	show_size(file);
	VALUE(fallocate(file, FALLOC_FL_KEEP_SIZE, 0, 20000));
	show_size(file);
	VALUE(fallocate(file, 0, 0, 0));
	VALUE(fallocate(file, 0, -1, 10));
	VALUE(fallocate(reader, 0, 0, 10));
	MUST(pipe(channel));
	VALUE(fallocate(channel[1], 0, 0, 10));
	ANSWER(posix_fallocate(file, 0, 30000));
	show_size(file);
	return 0;
}
