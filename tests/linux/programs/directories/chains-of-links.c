// calls: openat newfstatat
// flags: ELOOP
// what: 40 links in a row are followed and 41 are ELOOP, as is a link to itself
#include "../check.h"

int main(void)
{
	char name[16], target[16];
	struct stat found;
	enter_own_folder();
	write_file("l0", "end of the chain");
	for (int index = 1; index <= 41; index++) {
		snprintf(name, sizeof name, "l%d", index);
		snprintf(target, sizeof target, "l%d", index - 1);
		MUST(symlink(target, name));
	}
	OUTCOME(open("l40", O_RDONLY));
	OUTCOME(open("l41", O_RDONLY));
	MUST(symlink("self", "self"));
	OUTCOME(open("self", O_RDONLY));
	OUTCOME(open("self/x", O_RDONLY));
	VALUE(lstat("self", &found));
	VALUE(stat("self", &found));
	MUST(symlink(".", "here"));
	OUTCOME(open("here/here/here/l0", O_RDONLY));
	return 0;
}
