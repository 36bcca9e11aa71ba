// calls: sendfile splice
// flags: none
// what: a file goes into a connection without passing the program, as web servers send it
#include "../network.h"
#include <sys/sendfile.h>

int main(void)
{
	int ends[2], channel[2];
	char text[32] = "";
	enter_own_folder();
	write_file("data", "content of the file");
	int file = MUST(open("data", O_RDONLY));
	tcp_pair(ends);
	VALUE(sendfile(ends[0], file, &(off_t){ 0 }, 100));
	VALUE(recv(ends[1], text, 19, MSG_WAITALL));
	puts(text);
	MUST(pipe(channel));
	MUST(write(ends[0], "from a socket", 13));
	wait_for(ends[1], POLLIN);
	VALUE(splice(ends[1], NULL, channel[1], NULL, 100, 0));
	memset(text, 0, sizeof text);
	VALUE(read(channel[0], text, 32));
	puts(text);
	VALUE(sendfile(file, ends[0], NULL, 1));
	return 0;
}
