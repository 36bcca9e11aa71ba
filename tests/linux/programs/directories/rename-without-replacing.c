// calls: renameat2
// flags: RENAME_NOREPLACE RENAME_EXCHANGE
// what: RENAME_NOREPLACE refuses to replace; RENAME_EXCHANGE swaps two names, of whatever kind
#include "../check.h"

enum { NOREPLACE = 1, EXCHANGE = 2 };

static long renameat2(const char *from, const char *to, int flags)
{
	return syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, flags);
}

int main(void)
{
	enter_own_folder();
	write_file("one", "first"), write_file("two", "second");
	MUST(mkdir("folder", 0755));
	write_file("folder/data", "inner");
	VALUE(renameat2("one", "two", NOREPLACE));
	VALUE(renameat2("one", "three", NOREPLACE));
	VALUE(renameat2("three", "two", EXCHANGE));
	show_file("three"), show_file("two");
	VALUE(renameat2("two", "folder", EXCHANGE));
	show_file("folder"), show_file("two/data");
	VALUE(renameat2("two", "missing", EXCHANGE));
	VALUE(renameat2("two", "three", NOREPLACE | EXCHANGE));
	VALUE(renameat2("two", "three", 64));
	return 0;
}
