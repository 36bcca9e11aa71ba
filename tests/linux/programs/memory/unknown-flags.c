// calls: mmap
// flags: MAP_SHARED_VALIDATE
// what: MAP_SHARED_VALIDATE refuses flags that it does not know, MAP_PRIVATE ignores them
#include "../check.h"

int main(void)
{
	enter_own_folder();
	write_file("data", "text");
	int file = MUST(open("data", O_RDWR)), unknown = 1 << 23;
	OUTCOME(mmap(NULL, PAGE, PROT_READ, MAP_SHARED_VALIDATE, file, 0));
	OUTCOME(mmap(NULL, PAGE, PROT_READ, MAP_SHARED_VALIDATE | unknown, file, 0));
	OUTCOME(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | unknown, file, 0));
	return 0;
}
