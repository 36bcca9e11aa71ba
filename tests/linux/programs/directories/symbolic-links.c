// calls: symlink readlink
// flags: none
// what: links hold any text, are followed relative to their folder, and readlink cuts and never ends the text
#include "../check.h"

int main(void)
{
	char text[64];
	enter_own_folder();
	MUST(mkdir("folder", 0755));
	write_file("data", "text");
	VALUE(symlink("../data", "folder/link"));
	show_file("folder/link");
	VALUE(symlink("any text at all", "odd"));
	memset(text, '#', sizeof text);
	VALUE(readlink("odd", text, 8));
	printf("%.9s\n", text);
	VALUE(readlink("odd", text, sizeof text));
	VALUE(readlink("data", text, sizeof text));
	VALUE(readlink("missing", text, sizeof text));
	VALUE(syscall(SYS_readlink, "odd", text, 0));
	VALUE(symlink("data", "odd"));
	VALUE(symlink("", "empty"));
	VALUE(symlink("data", "missing/link"));
	OUTCOME(open("odd", O_RDONLY));
	return 0;
}
