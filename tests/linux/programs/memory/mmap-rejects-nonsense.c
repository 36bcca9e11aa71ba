// calls: mmap
// flags: MAP_PRIVATE MAP_SHARED MAP_FIXED
// what: a length of 0, no sharing mode, a bad descriptor, and unaligned offsets and addresses are errors
#include "../check.h"

int main(void)
{
	int anonymous = MAP_PRIVATE | MAP_ANONYMOUS;
	int zero = MUST(open("/dev/zero", O_RDWR));
	OUTCOME(mmap(NULL, 0, PROT_READ, anonymous, -1, 0));
	OUTCOME(mmap(NULL, PAGE, PROT_READ, MAP_ANONYMOUS, -1, 0));
	OUTCOME(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, -1, 0));
	OUTCOME(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, 1000, 0));
	OUTCOME(syscall(SYS_mmap, NULL, PAGE, PROT_READ, MAP_PRIVATE, zero, 17));
	OUTCOME(mmap((void *)0x10000001, PAGE, PROT_READ, anonymous | MAP_FIXED, -1, 0));
	OUTCOME(syscall(SYS_mmap, NULL, -PAGE, PROT_READ, anonymous, -1, 0));
	OUTCOME(syscall(SYS_mmap, -PAGE, PAGE, PROT_READ, anonymous | MAP_FIXED, -1, 0));
	return 0;
}
