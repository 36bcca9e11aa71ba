// calls: setresuid setresgid setuid getuid geteuid getgid getegid openat newfstatat
// flags: none
// what: a process that becomes another user is that user at call sites that were used before, and what it makes belongs to it
#include "../check.h"

#include <sys/stat.h>

static void show(void)
{
	for (int i = 0; i < 20; i++) {
		unsigned ids[] = { getuid(), geteuid(), getgid(), getegid() };
		if (i % 19 == 0)
			printf("%u %u %u %u\n", ids[0], ids[1], ids[2], ids[3]);
	}
}

static void make(const char *path)
{
	struct stat status;
	VALUE(close(open(path, O_RDWR | O_CREAT, 0600)));
	VALUE(stat(path, &status));
	printf("%u %u\n", status.st_uid, status.st_gid);
	VALUE(unlink(path));
}

int main(void)
{
	show();
	make("/tmp/becoming-a-user-1");
	VALUE(setresgid(2001, 2002, 2003));
	VALUE(setresuid(1001, 1002, 1003));
	show();
	make("/tmp/becoming-a-user-2");
	VALUE(setuid(1003));
	VALUE(setgid(2003));
	show();
	make("/tmp/becoming-a-user-3");
	VALUE(setuid(0));
	show();
	return 0;
}
