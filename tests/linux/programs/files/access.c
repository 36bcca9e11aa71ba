// calls: access faccessat faccessat2
// flags: F_OK R_OK W_OK X_OK AT_EACCESS AT_SYMLINK_NOFOLLOW
// what: root may read and write everything but runs only what is executable for somebody
#include "../check.h"

int main(void)
{
	enter_own_folder();
	write_file("data", "text");
	MUST(chmod("data", 0));
	VALUE(access("data", F_OK));
	VALUE(access("data", R_OK | W_OK));
	VALUE(access("data", X_OK));
	MUST(chmod("data", 0001));
	VALUE(access("data", X_OK));
	VALUE(access(".", R_OK | W_OK | X_OK));
	VALUE(access("missing", F_OK));
	VALUE(access("data", 64));
	VALUE(access("data/x", F_OK));
	MUST(symlink("missing", "link"));
	VALUE(access("link", F_OK));
	VALUE(syscall(SYS_faccessat2, AT_FDCWD, "link", F_OK, AT_SYMLINK_NOFOLLOW));
	VALUE(syscall(SYS_faccessat2, AT_FDCWD, "data", R_OK, AT_EACCESS));
	VALUE(syscall(SYS_faccessat2, AT_FDCWD, "data", R_OK, 0x4000));
	return 0;
}
