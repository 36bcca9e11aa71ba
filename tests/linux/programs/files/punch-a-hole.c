// calls: fallocate
// flags: FALLOC_FL_PUNCH_HOLE FALLOC_FL_KEEP_SIZE
// what: a hole reads as zero and leaves the size; without FALLOC_FL_KEEP_SIZE it is refused
#include "../check.h"

int main(void)
{
	char text[PAGE * 4];
	enter_own_folder();
	int file = MUST(open("data", O_RDWR | O_CREAT, 0644));
	memset(text, 'x', sizeof text);
	MUST(write(file, text, sizeof text));
	VALUE(fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, PAGE - 10, PAGE + 20));
	VALUE(pread(file, text, sizeof text, 0));
	HOLDS(text[PAGE - 11] == 'x' && text[PAGE - 10] == 0);
	HOLDS(text[2 * PAGE + 9] == 0 && text[2 * PAGE + 10] == 'x');
	OUTCOME(fallocate(file, FALLOC_FL_PUNCH_HOLE, 0, PAGE));
	VALUE(lseek(file, 0, SEEK_END));
	return 0;
}
