// calls: umask pwrite64 mmap
// flags: none
// what: call sites that get their number from a variable are executed often with different calls, all arguments and failures
#include "forms.h"
#include <sys/mman.h>

int main(void)
{
	umask(022);
	long wrong = 0;
	for (long round = 0; round < 400; round++) {
		long next = round & 0777;
		wrong += compared(SYS_umask, next, 0, 0) != (round ? (round - 1) & 0777 : 022);
		wrong += compared_short(SYS_umask, next, 0, 0) != next;
		wrong += moved(SYS_umask, next, 0, 0, 0, 0, 0) != next;
		wrong += stored(SYS_umask, next, 0, 0) != next;
		wrong += compared(SYS_close, -1, 0, 0) != -1;
		wrong += compared_short(SYS_close, -1, 0, 0) != -1;
		wrong += moved(SYS_close, -1, 0, 0, 0, 0, 0) != -EBADF;
		wrong += stored(SYS_close, -1, 0, 0) != -EBADF;
	}
	VALUE(wrong);
	// The sixth argument, an offset into the file, comes from the stack.
	FILE *file = tmpfile();
	for (int page = 0; page < 4; page++)
		MUST(pwrite(fileno(file), &page, sizeof page, page * PAGE));
	int *third = (int *)moved(SYS_mmap, 0, PAGE, PROT_READ, MAP_PRIVATE, fileno(file), 2 * PAGE);
	VALUE(*third);
	return 0;
}
