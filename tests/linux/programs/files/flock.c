// calls: flock
// flags: LOCK_SH LOCK_EX LOCK_NB LOCK_UN
// what: locks of whole files belong to open files: two openings conflict, duplicates do not
#include "../check.h"
#include <sys/file.h>

int main(void)
{
	enter_own_folder();
	write_file("data", "text");
	int one = MUST(open("data", O_RDONLY)), two = MUST(open("data", O_RDWR));
	VALUE(flock(one, LOCK_EX));
	VALUE(flock(two, LOCK_EX | LOCK_NB));
	VALUE(flock(two, LOCK_SH | LOCK_NB));
	VALUE(flock(dup(one), LOCK_EX | LOCK_NB));
	VALUE(flock(one, LOCK_SH));
	VALUE(flock(two, LOCK_SH | LOCK_NB));
	VALUE(flock(two, LOCK_EX | LOCK_NB));
	VALUE(flock(one, LOCK_UN));
	VALUE(flock(two, LOCK_EX | LOCK_NB));
	close(two);
	VALUE(flock(one, LOCK_EX | LOCK_NB));
	VALUE(flock(one, 64));
	VALUE(flock(1000, LOCK_SH));
	return 0;
}
