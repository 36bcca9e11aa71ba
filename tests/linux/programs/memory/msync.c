// calls: msync
// flags: MS_SYNC MS_ASYNC MS_INVALIDATE
// what: msync of a shared file mapping succeeds; contradictions, unaligned addresses and holes are errors
#include "../check.h"

int main(void)
{
	enter_own_folder();
	int file = MUST(open("data", O_RDWR | O_CREAT, 0644));
	MUST(ftruncate(file, 3 * PAGE));
	char *area = MUST(mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0));
	strcpy(area, "synced");
	VALUE(msync(area, 3 * PAGE, MS_SYNC));
	VALUE(msync(area, PAGE, MS_ASYNC));
	VALUE(msync(area, PAGE, MS_SYNC | MS_INVALIDATE));
	VALUE(msync(area, PAGE, MS_SYNC | MS_ASYNC));
	VALUE(msync(area + 1, PAGE, MS_SYNC));
	VALUE(msync(area, PAGE, 64));
	MUST(munmap(area + PAGE, PAGE));
	VALUE(msync(area, 3 * PAGE, MS_SYNC));
	VALUE(msync(area, 0, MS_SYNC));
	return 0;
}
