// calls: mknod openat
// flags: S_IFIFO O_NONBLOCK
// what: a named pipe opens for reading at once without blocking, for writing only when somebody reads
#include "../check.h"

int main(void)
{
	struct stat found;
	char text[8] = "";
	enter_own_folder();
	VALUE(mkfifo("pipe", 0640));
	VALUE(mkfifo("pipe", 0640));
	MUST(stat("pipe", &found));
	HOLDS(S_ISFIFO(found.st_mode));
	OUTCOME(open("pipe", O_WRONLY | O_NONBLOCK));
	int reader = MUST(open("pipe", O_RDONLY | O_NONBLOCK));
	VALUE(read(reader, text, 4));
	int writer = MUST(open("pipe", O_WRONLY | O_NONBLOCK));
	VALUE(read(reader, text, 4));
	VALUE(write(writer, "text", 4));
	VALUE(read(reader, text, 4));
	puts(text);
	close(writer);
	VALUE(read(reader, text, 4));
	VALUE(unlink("pipe"));
	return 0;
}
