// calls: openat getdents64
// flags: none
// what: a name may hold any bytes but a slash and zero
#include "../check.h"

int main(void)
{
	const char *names[] = { "with space", "new\nline", "\xff\xfe", "ümläut", "-dash", "...", "*" };
	int found = 0;
	enter_own_folder();
	for (int index = 0; index < 7; index++)
		OUTCOME(open(names[index], O_WRONLY | O_CREAT | O_EXCL, 0644));
	DIR *folder = opendir(".");
	for (struct dirent *entry; (entry = readdir(folder));)
		for (int index = 0; index < 7; index++)
			found += strcmp(entry->d_name, names[index]) == 0;
	VALUE(found);
	return 0;
}
