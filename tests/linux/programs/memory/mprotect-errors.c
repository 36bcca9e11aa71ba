// calls: mprotect
// flags: PROT_WRITE
// what: unaligned addresses, holes, and writing through a read-only descriptor are refused
#include "../check.h"

int main(void)
{
	enter_own_folder();
	write_file("data", "text");
	char *area = map_anonymous(3 * PAGE);
	VALUE(mprotect(area + 1, PAGE, PROT_READ));
	VALUE(mprotect(area, 0, PROT_READ));
	MUST(munmap(area + PAGE, PAGE));
	VALUE(mprotect(area, 3 * PAGE, PROT_READ));
	VALUE(mprotect(area + PAGE, PAGE, PROT_READ));
	int file = MUST(open("data", O_RDONLY));
	char *shared = MUST(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, file, 0));
	char *private = MUST(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, file, 0));
	VALUE(mprotect(shared, PAGE, PROT_READ | PROT_WRITE));
	VALUE(mprotect(private, PAGE, PROT_READ | PROT_WRITE));
	return 0;
}
