// calls: getdents64
// flags: DT_REG DT_DIR DT_LNK DT_FIFO
// what: a listing has every entry once, "." and ".." too, with its type
#include "../check.h"

static int by_name(const struct dirent **one, const struct dirent **other)
{
	return strcmp((*one)->d_name, (*other)->d_name);
}

int main(void)
{
	struct dirent **entries;
	enter_own_folder();
	write_file("data", "text");
	MUST(mkdir("folder", 0755));
	MUST(symlink("data", "link"));
	MUST(mkfifo("pipe", 0644));
	write_file(".hidden", "");
	int count = scandir(".", &entries, NULL, by_name);
	VALUE(count);
	for (int index = 0; index < count; index++) {
		int type = entries[index]->d_type;
		printf("%s: %s\n", entries[index]->d_name,
			   type == DT_REG ? "file" : type == DT_DIR ? "folder" : type == DT_LNK ? "link"
					: type == DT_FIFO ? "pipe" : "other");
	}
	return 0;
}
