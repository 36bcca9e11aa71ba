// calls: umask
// flags: none
// what: every register but rax, rcx and r11 keeps its value over a call; rcx is the address after it
#include "../check.h"

struct registers {
	unsigned long rbx, rdx, rsi, rdi, rbp, r8, r9, r10, r12, r13, r14, r15, rcx, flags;
};

void call_with(struct registers *registers);
extern char after_the_call[];

__asm__(
	".text\n"
	"call_with:\n"
	"	push %rbx\n	push %rbp\n	push %r12\n	push %r13\n	push %r14\n	push %r15\n	push %rdi\n"
	"	mov 0(%rdi), %rbx\n	mov 8(%rdi), %rdx\n	mov 16(%rdi), %rsi\n"
	"	mov 32(%rdi), %rbp\n	mov 40(%rdi), %r8\n	mov 48(%rdi), %r9\n	mov 56(%rdi), %r10\n"
	"	mov 64(%rdi), %r12\n	mov 72(%rdi), %r13\n	mov 80(%rdi), %r14\n	mov 88(%rdi), %r15\n"
	"	mov 24(%rdi), %rdi\n"
	"	stc\n"
	"	mov $95, %eax\n"
	"	syscall\n"
	"	.global after_the_call\n"
	"after_the_call:\n"
	"	pushfq\n"
	"	xchg %rdi, 8(%rsp)\n" /* the structure, and the argument in its place */
	"	mov %rbx, 0(%rdi)\n	mov %rdx, 8(%rdi)\n	mov %rsi, 16(%rdi)\n"
	"	mov %rbp, 32(%rdi)\n	mov %r8, 40(%rdi)\n	mov %r9, 48(%rdi)\n	mov %r10, 56(%rdi)\n"
	"	mov %r12, 64(%rdi)\n	mov %r13, 72(%rdi)\n	mov %r14, 80(%rdi)\n	mov %r15, 88(%rdi)\n"
	"	mov %rcx, 96(%rdi)\n"
	"	pop 104(%rdi)\n	pop 24(%rdi)\n"
	"	pop %r15\n	pop %r14\n	pop %r13\n	pop %r12\n	pop %rbp\n	pop %rbx\n"
	"	ret\n");

int main(void)
{
	int changed = 0, elsewhere = 0, carry_lost = 0;
	for (int round = 0; round < 100; round++) {
		struct registers before;
		unsigned long *words = (unsigned long *)&before;
		for (unsigned index = 0; index < 12; index++)
			words[index] = 0x1111111111111111ul * (index + 1) + round;
		before.rdi = 022;
		struct registers after = before;
		call_with(&after);
		changed += memcmp(&before, &after, 12 * sizeof(long)) != 0;
		elsewhere += after.rcx != (unsigned long)after_the_call;
		carry_lost += (after.flags & 1) == 0;
	}
	VALUE(changed);
	VALUE(elsewhere);
	VALUE(carry_lost);
	return 0;
}
