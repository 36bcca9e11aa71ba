// calls: openat
// flags: O_CREAT O_EXCL
// what: exclusive creation makes a file once; a file or even a dangling link of that name is EEXIST
#include "../check.h"

int main(void)
{
	enter_own_folder();
	OUTCOME(open("data", O_RDWR | O_CREAT | O_EXCL, 0600));
	OUTCOME(open("data", O_RDWR | O_CREAT | O_EXCL, 0600));
	OUTCOME(open("data", O_RDWR | O_CREAT, 0600));
	MUST(symlink("nowhere", "link"));
	OUTCOME(open("link", O_RDWR | O_CREAT | O_EXCL, 0600));
	OUTCOME(open(".", O_RDWR | O_CREAT | O_EXCL, 0600));
	OUTCOME(open("link", O_RDWR | O_CREAT, 0600));
	HOLDS(access("nowhere", F_OK) == 0);
	return 0;
}
