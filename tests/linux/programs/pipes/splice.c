// calls: splice
// flags: SPLICE_F_NONBLOCK
// what: splice moves bytes between files and pipes; two files are EINVAL, an offset for a pipe ESPIPE
#include "../check.h"

int main(void)
{
	int channel[2];
	char text[16] = "";
	loff_t offset = 3;
	enter_own_folder();
	write_file("from", "0123456789");
	int from = MUST(open("from", O_RDONLY)), to = MUST(open("to", O_RDWR | O_CREAT, 0644));
	MUST(pipe(channel));
	VALUE(splice(from, &offset, channel[1], NULL, 4, 0));
	VALUE(offset);
	VALUE(splice(from, NULL, channel[1], NULL, 2, 0));
	VALUE(splice(channel[0], NULL, to, NULL, 100, SPLICE_F_NONBLOCK));
	show_file("to");
	VALUE(splice(channel[0], NULL, to, NULL, 100, SPLICE_F_NONBLOCK));
	VALUE(splice(from, NULL, to, NULL, 1, 0));
	VALUE(splice(from, NULL, channel[1], &offset, 1, 0));
	VALUE(splice(from, NULL, channel[1], NULL, 0, 0));
	close(channel[1]);
	VALUE(splice(channel[0], NULL, to, NULL, 100, 0));
	VALUE(read(channel[0], text, 1));
	return 0;
}
