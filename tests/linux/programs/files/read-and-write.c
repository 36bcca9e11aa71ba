// calls: read write
// flags: none
// what: reads stop at the end, writes overwrite and extend; the wrong access mode is EBADF
#include "../check.h"

int main(void)
{
	char text[16] = "";
	enter_own_folder();
	write_file("data", "0123456789");
	int reader = MUST(open("data", O_RDONLY)), writer = MUST(open("data", O_WRONLY));
	VALUE(read(reader, text, 4));
	VALUE(read(reader, text, 16));
	VALUE(read(reader, text, 16));
	VALUE(read(reader, text, 0));
	VALUE(write(writer, "ab", 2));
	VALUE(write(writer, "", 0));
	VALUE(lseek(writer, 9, SEEK_SET));
	VALUE(write(writer, "xyz", 3));
	show_file("data");
	VALUE(write(reader, "x", 1));
	VALUE(read(writer, text, 1));
	VALUE(read(1000, text, 1));
	VALUE(write(-1, text, 1));
	return 0;
}
