// calls: mmap mprotect getppid umask
// flags: PROT_READ PROT_WRITE PROT_EXEC
// what: code that a program writes at run time can make calls, be executed often, and be replaced
#include "../check.h"

static void put(unsigned char *place, unsigned number)
{
	unsigned char code[] = {0xb8, 0, 0, 0, 0, 0x0f, 0x05, 0xc3};
	memcpy(code + 1, &number, 4);
	memcpy(place, code, sizeof code);
}

int main(void)
{
	unsigned char *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	long (*call)(long) = (long (*)(long))(void *)page;
	put(page, SYS_umask);
	call(022);
	for (int round = 0; round < 100; round++)
		call(022);
	VALUE(call(022));
	put(page, SYS_getuid);
	HOLDS(call(0) == getuid());
	MUST(mprotect(page, PAGE, PROT_READ | PROT_EXEC));
	for (int round = 0; round < 100; round++)
		call(0);
	HOLDS(call(0) == getuid());
	MUST(mprotect(page, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC));
	put(page, SYS_umask);
	VALUE(call(022));
	return 0;
}
