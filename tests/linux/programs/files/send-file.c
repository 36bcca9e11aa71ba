// calls: sendfile
// flags: none
// what: sendfile copies from a file to a file or pipe, from an offset or the position, up to the end
#include "../check.h"
#include <sys/sendfile.h>

int main(void)
{
	int channel[2];
	char text[16] = "";
	off_t offset = 4;
	enter_own_folder();
	write_file("from", "0123456789");
	int from = MUST(open("from", O_RDONLY)), to = MUST(open("to", O_RDWR | O_CREAT, 0644));
	MUST(pipe(channel));
	VALUE(sendfile(channel[1], from, &offset, 3));
	VALUE(offset);
	VALUE(read(channel[0], text, 16));
	puts(text);
	VALUE(lseek(from, 0, SEEK_CUR));
	VALUE(sendfile(to, from, NULL, 100));
	VALUE(lseek(from, 0, SEEK_CUR));
	VALUE(sendfile(to, from, NULL, 100));
	show_file("to");
	offset = -1;
	VALUE(sendfile(to, from, &offset, 1));
	VALUE(sendfile(from, to, NULL, 1));
	VALUE(sendfile(to, channel[0], NULL, 1));
	return 0;
}
