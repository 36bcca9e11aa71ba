// calls: umask getuid
// flags: none
// what: a number that is loaded with a 64-bit move makes the same call, and a jump to the instruction after it too
#include "../check.h"

long through_the_front(long argument);
long at_the_instruction(long number, long argument);

__asm__(
	".text\n"
	"through_the_front:\n"
	"	.byte 0x48, 0xc7, 0xc0, 95, 0, 0, 0\n"
	"at_the_call:\n"
	"	syscall\n"
	"	ret\n"
	"at_the_instruction:\n"
	"	mov %rdi, %rax\n"
	"	mov %rsi, %rdi\n"
	"	jmp at_the_call\n");

int main(void)
{
	through_the_front(022);
	long wrong = 0;
	for (int round = 0; round < 100; round++)
		wrong += through_the_front((round + 1) & 0777) != (round ? round & 0777 : 022);
	VALUE(wrong);
	VALUE(at_the_instruction(SYS_umask, 022));
	HOLDS(at_the_instruction(SYS_getuid, 0) == getuid());
	return 0;
}
