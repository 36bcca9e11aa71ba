// calls: mmap
// flags: MAP_SHARED MAP_PRIVATE
// what: the descriptor must be readable, and writable for a shared writable mapping; folders and pipes are ENODEV
#include "../check.h"

int main(void)
{
	int channel[2];
	enter_own_folder();
	write_file("data", "text");
	int read_only = MUST(open("data", O_RDONLY)), write_only = MUST(open("data", O_WRONLY));
	int folder = MUST(open(".", O_RDONLY | O_DIRECTORY)), path = MUST(open("data", O_PATH));
	MUST(pipe(channel));
	OUTCOME(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, read_only, 0));
	OUTCOME(mmap(NULL, PAGE, PROT_WRITE, MAP_SHARED, read_only, 0));
	OUTCOME(mmap(NULL, PAGE, PROT_WRITE, MAP_PRIVATE, read_only, 0));
	OUTCOME(mmap(NULL, PAGE, PROT_WRITE, MAP_SHARED, write_only, 0));
	OUTCOME(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, write_only, 0));
	OUTCOME(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, folder, 0));
	OUTCOME(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, channel[0], 0));
	OUTCOME(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, path, 0));
	return 0;
}
