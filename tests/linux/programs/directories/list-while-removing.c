// calls: getdents64 unlinkat
// flags: none
// what: entries can be removed while a folder is listed, as rm -r does, and all are met
#include "../check.h"

int main(void)
{
	char name[32];
	int removed = 0;
	enter_own_folder();
	MUST(mkdir("folder", 0755));
	for (int index = 0; index < 300; index++) {
		snprintf(name, sizeof name, "folder/%d", index);
		close(MUST(open(name, O_WRONLY | O_CREAT, 0644)));
	}
	DIR *folder = opendir("folder");
	for (struct dirent *entry; (entry = readdir(folder));)
		removed += unlinkat(dirfd(folder), entry->d_name, 0) == 0;
	VALUE(removed);
	VALUE(rmdir("folder"));
	return 0;
}
