// calls: mknod mknodat
// flags: S_IFREG S_IFSOCK
// what: mknod makes files and sockets; folders are EPERM, existing names EEXIST
#include "../check.h"

int main(void)
{
	struct stat found;
	enter_own_folder();
	VALUE(mknod("file", S_IFREG | 0600, 0));
	MUST(stat("file", &found));
	HOLDS(S_ISREG(found.st_mode) && (found.st_mode & 0777) == 0600 && found.st_size == 0);
	VALUE(mknod("plain", 0600, 0));
	MUST(stat("plain", &found));
	HOLDS(S_ISREG(found.st_mode));
	VALUE(mknod("socket", S_IFSOCK | 0600, 0));
	OUTCOME(open("socket", O_RDONLY));
	VALUE(mknod("folder", S_IFDIR | 0755, 0));
	VALUE(mknod("file", S_IFREG | 0600, 0));
	VALUE(mknod("missing/file", S_IFREG | 0600, 0));
	return 0;
}
