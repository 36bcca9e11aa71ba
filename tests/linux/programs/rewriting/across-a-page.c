// calls: umask
// flags: none
// what: a call site that lies across the border of two pages works, however often it is executed
#include "../check.h"

long call_across(long argument);

__asm__(
	".text\n"
	"	.balign 4096\n"
	"	.skip 4092, 0x90\n"
	"call_across:\n"
	"	mov $95, %eax\n"
	"	syscall\n"
	"	ret\n"
	"	.balign 4096\n");

int main(void)
{
	call_across(022);
	for (int round = 0; round < 100; round++)
		call_across(022);
	VALUE(call_across(022));
	return 0;
}
