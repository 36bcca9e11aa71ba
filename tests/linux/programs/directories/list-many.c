// calls: getdents64 lseek
// flags: none
// what: a thousand entries come in many calls, none lost and none twice; rewinding begins again
#include "../check.h"

static int count(DIR *folder, char *seen)
{
	int entries = 0;
	for (struct dirent *entry; (entry = readdir(folder));) {
		if (entry->d_name[0] == 'f')
			seen[atoi(entry->d_name + 1)]++;
		entries++;
	}
	return entries;
}

int main(void)
{
	static char seen[1000];
	char name[32];
	int wrong = 0;
	enter_own_folder();
	for (int index = 0; index < 1000; index++) {
		snprintf(name, sizeof name, "f%d", index);
		close(MUST(open(name, O_WRONLY | O_CREAT, 0644)));
	}
	DIR *folder = opendir(".");
	VALUE(count(folder, seen));
	rewinddir(folder);
	VALUE(count(folder, seen));
	for (int index = 0; index < 1000; index++)
		wrong += seen[index] != 2;
	VALUE(wrong);
	return 0;
}
