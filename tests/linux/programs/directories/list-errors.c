// calls: getdents64
// flags: none
// what: files are ENOTDIR, buffers too small for an entry EINVAL, bad ones EFAULT; a removed folder is ENOENT
#include "../check.h"

int main(void)
{
	char buffer[512];
	enter_own_folder();
	write_file("data", "text");
	MUST(mkdir("folder", 0755));
	int file = MUST(open("data", O_RDONLY)), folder = MUST(open(".", O_RDONLY));
	VALUE(syscall(SYS_getdents64, file, buffer, sizeof buffer));
	VALUE(syscall(SYS_getdents64, folder, buffer, 4));
	VALUE(syscall(SYS_getdents64, folder, (void *)8, 512));
	VALUE(syscall(SYS_getdents64, 1000, buffer, sizeof buffer));
	HOLDS(syscall(SYS_getdents64, folder, buffer, sizeof buffer) > 0);
	VALUE(syscall(SYS_getdents64, folder, buffer, sizeof buffer));
	int removed = MUST(open("folder", O_RDONLY));
	MUST(rmdir("folder"));
	VALUE(syscall(SYS_getdents64, removed, buffer, sizeof buffer));
	return 0;
}
