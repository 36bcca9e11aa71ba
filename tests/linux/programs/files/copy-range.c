// calls: copy_file_range
// flags: none
// what: a range is copied between files at offsets or positions; overlaps, folders and flags are errors
#include "../check.h"

int main(void)
{
	off_t in = 2, out = 5;
	enter_own_folder();
	write_file("from", "0123456789");
	int from = MUST(open("from", O_RDWR)), to = MUST(open("to", O_RDWR | O_CREAT, 0644));
	VALUE(copy_file_range(from, &in, to, &out, 4, 0));
	HOLDS(in == 6 && out == 9);
	show_file("to");
	VALUE(copy_file_range(from, NULL, to, NULL, 100, 0));
	VALUE(copy_file_range(from, NULL, to, NULL, 100, 0));
	show_file("to");
	in = 0, out = 3;
	VALUE(copy_file_range(from, &in, from, &out, 5, 0));
	VALUE(copy_file_range(from, &in, from, &out, 3, 0));
	show_file("from");
	VALUE(copy_file_range(from, NULL, to, NULL, 1, 1));
	VALUE(copy_file_range(MUST(open(".", O_RDONLY)), NULL, to, NULL, 1, 0));
	VALUE(copy_file_range(MUST(open("to", O_WRONLY)), NULL, to, NULL, 1, 0));
	return 0;
}
