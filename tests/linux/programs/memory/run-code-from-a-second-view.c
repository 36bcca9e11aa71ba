// calls: memfd_create mmap
// flags: MAP_SHARED PROT_EXEC
// what: code written through one mapping of a memory file runs in another, executable one
#include "../check.h"

int main(void)
{
	int file = MUST(memfd_create("code", 0));
	MUST(ftruncate(file, PAGE));
	unsigned char *writable = MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0));
	void *executable = MUST(mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_SHARED, file, 0));
	int (*function)(void) = (int (*)(void))executable;
	memcpy(writable, "\xb8\x07\x00\x00\x00\xc3", 6); /* mov $7, %eax; ret */
	VALUE(function());
	writable[1] = 8;
	VALUE(function());
	return 0;
}
