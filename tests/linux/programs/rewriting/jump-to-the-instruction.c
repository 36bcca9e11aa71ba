// calls: umask getppid
// flags: none
// what: a jump to the syscall instruction itself makes the call whose number is in rax, also after many ordinary calls
#include "../check.h"

long through_the_front(long argument);
long at_the_instruction(long number, long argument);

__asm__(
	".text\n"
	"through_the_front:\n"
	"	mov $95, %eax\n"
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
	for (int round = 0; round < 100; round++)
		through_the_front(round & 0777);
	VALUE(through_the_front(022));
	VALUE(at_the_instruction(SYS_umask, 027));
	VALUE(at_the_instruction(SYS_umask, 022));
	HOLDS(at_the_instruction(SYS_getpid, 0) == getpid());
	VALUE(at_the_instruction(-1, 0));
	VALUE(at_the_instruction(512, 0) == -ENOSYS);
	VALUE(through_the_front(022));
	return 0;
}
