// calls: openat read write
// flags: none
// what: opening a named pipe waits for the other side
#include "../check.h"

static void *write_side(void *argument)
{
	int writer = MUST(open("pipe", O_WRONLY));
	MUST(write(writer, "hello", 5));
	close(writer);
	return argument;
}

int main(void)
{
	pthread_t thread;
	char text[8] = "";
	enter_own_folder();
	MUST(mkfifo("pipe", 0600));
	pthread_create(&thread, NULL, write_side, NULL);
	int reader = MUST(open("pipe", O_RDONLY));
	VALUE(read(reader, text, 8));
	puts(text);
	VALUE(read(reader, text, 8));
	pthread_join(thread, NULL);
	return 0;
}
