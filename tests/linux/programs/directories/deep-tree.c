// calls: mkdir chdir openat rmdir
// flags: none
// what: folders nest a hundred deep, are walked by one path, and ".." leads all the way back
#include "../check.h"

int main(void)
{
	char path[512] = "";
	enter_own_folder();
	int start = MUST(open(".", O_RDONLY));
	for (int depth = 0; depth < 100; depth++) {
		MUST(mkdir("d", 0755));
		MUST(chdir("d"));
		strcat(path, "d/");
	}
	write_file("bottom", "found");
	MUST(fchdir(start));
	strcat(path, "bottom");
	show_file(path);
	path[strlen(path) - 6] = 0;
	MUST(chdir(path));
	for (int depth = 0; depth < 100; depth++)
		strcpy(path + 3 * depth, "../");
	strcat(path, "mark");
	write_file(path, "mark");
	MUST(fchdir(start));
	show_file("mark");
	return 0;
}
