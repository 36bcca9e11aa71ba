// calls: rmdir getcwd openat mkdir
// flags: none
// what: a folder that is removed while one is in it has no path and takes nothing new
#include "../check.h"

int main(void)
{
	char path[256];
	enter_own_folder();
	MUST(mkdir("folder", 0755));
	MUST(chdir("folder"));
	MUST(rmdir("../folder"));
	OUTCOME(getcwd(path, sizeof path) ? 0 : -1);
	OUTCOME(open("data", O_WRONLY | O_CREAT, 0644));
	OUTCOME(mkdir("inner", 0755));
	OUTCOME(open(".", O_RDONLY));
	OUTCOME(chdir(".."));
	OUTCOME(chdir("folder"));
	return 0;
}
