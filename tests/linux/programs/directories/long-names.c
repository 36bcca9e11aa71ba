// calls: openat mkdir
// flags: ENAMETOOLONG
// what: a name may have 255 bytes and a path 4,095; more is ENAMETOOLONG
#include "../check.h"

int main(void)
{
	static char name[300], path[5000];
	enter_own_folder();
	memset(name, 'n', 255);
	OUTCOME(open(name, O_WRONLY | O_CREAT, 0644));
	name[255] = 'n';
	OUTCOME(open(name, O_WRONLY | O_CREAT, 0644));
	OUTCOME(mkdir(name, 0755));
	OUTCOME(access(name, F_OK));
	for (size_t length = 0; length < 4095; length += 2)
		memcpy(path + length, "./", 2);
	path[4095] = 0;
	OUTCOME(open(path, O_RDONLY));
	path[4095] = '.', path[4096] = 0;
	OUTCOME(open(path, O_RDONLY));
	return 0;
}
