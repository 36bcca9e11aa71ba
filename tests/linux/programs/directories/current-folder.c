// calls: getcwd chdir fchdir
// flags: none
// what: the current folder is entered by path, link and descriptor, and told without links
#include "../check.h"

int main(void)
{
	char path[256], small[4];
	enter_own_folder();
	size_t start = strlen(getcwd(path, sizeof path));
	MUST(mkdir("folder", 0755));
	MUST(symlink("folder", "link"));
	int above = MUST(open(".", O_RDONLY));
	VALUE(chdir("link"));
	puts(getcwd(path, sizeof path) + start);
	VALUE(fchdir(above));
	HOLDS(strlen(getcwd(path, sizeof path)) == start);
	VALUE(chdir("/"));
	puts(getcwd(path, sizeof path));
	VALUE(syscall(SYS_getcwd, path, sizeof path));
	VALUE(fchdir(above));
	VALUE(syscall(SYS_getcwd, small, sizeof small));
	VALUE(syscall(SYS_getcwd, NULL, 100));
	VALUE(fchdir(1000));
	VALUE(fchdir(MUST(open("/dev/null", O_RDONLY))));
	return 0;
}
