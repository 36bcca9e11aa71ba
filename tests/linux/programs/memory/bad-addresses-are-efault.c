// calls: read write pipe stat
// flags: PROT_NONE
// what: a system call that is given memory that cannot be accessed fails with EFAULT and does nothing
#include "../check.h"

int main(void)
{
	int channel[2];
	char text[8] = "";
	MUST(pipe(channel));
	char *area = map_anonymous(2 * PAGE);
	MUST(mprotect(area + PAGE, PAGE, PROT_NONE));
	VALUE(write(channel[1], area + PAGE, 4));
	VALUE(write(channel[1], (void *)8, 4));
	VALUE(write(channel[1], (void *)(1ul << 63), 4));
	VALUE(write(channel[1], "text", 4));
	VALUE(read(channel[0], area + PAGE, 4));
	VALUE(read(channel[0], NULL, 4));
	VALUE(read(channel[0], text, 4));
	printf("read: %s\n", text);
	VALUE(syscall(SYS_pipe, area + PAGE));
	VALUE(syscall(SYS_stat, area + PAGE, text));
	VALUE(syscall(SYS_stat, "/", area + PAGE));
	return 0;
}
