// calls: preadv pwritev preadv2 pwritev2
// flags: RWF_APPEND
// what: vectors at an offset leave the position alone; preadv2 with -1 uses it; unknown flags are EOPNOTSUPP
#include "../check.h"

int main(void)
{
	char first[3] = "", second[3] = "";
	struct iovec out[2] = { { "ab", 2 }, { "cd", 2 } }, in[2] = { { first, 2 }, { second, 2 } };
	enter_own_folder();
	int file = MUST(open("data", O_RDWR | O_CREAT, 0644));
	VALUE(pwritev(file, out, 2, 10));
	VALUE(preadv(file, in, 2, 10));
	printf("%s|%s\n", first, second);
	VALUE(lseek(file, 0, SEEK_CUR));
	VALUE(preadv(file, in, 2, -1));
	VALUE(lseek(file, 12, SEEK_SET));
	VALUE(syscall(SYS_preadv2, file, in, 2, -1l, -1l, 0));
	printf("%s\n", first);
	VALUE(lseek(file, 0, SEEK_CUR));
	VALUE(syscall(SYS_pwritev2, file, out, 2, 0l, 0l, 0x10)); /* RWF_APPEND */
	VALUE(lseek(file, 0, SEEK_END));
	VALUE(syscall(SYS_preadv2, file, in, 2, 0l, 0l, 1 << 20));
	return 0;
}
