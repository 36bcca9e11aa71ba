// Call sites that do not load the number of their call themselves, in the shapes in which C libraries and Go have them.
#pragma once
#include "../check.h"

long compared(long number, long a, long b, long c);
long compared_short(long number, long a, long b, long c);
long moved(long number, long a, long b, long c, long d, long e, long f);
long stored(long number, long a, long b, long c);
// Loads the number of read itself, and compares what it gets.
long long_read(long a, long b, long c);
void end_of_forms(void);
// The same from behind what they begin with.
long at_the_comparison(long result);
long within_the_moves(long number, long a, long b, long c);

__asm__(
	".text\n"
	// glibc's read, Go's Syscall6: all ones if it failed
	"compared:\n"
	"	mov %rdi, %rax\n	mov %rsi, %rdi\n	mov %rdx, %rsi\n	mov %rcx, %rdx\n"
	"	syscall\n"
	"comparison:\n"
	"	cmp $-4095, %rax\n"
	"	jae 1f\n	ret\n"
	"1:	mov $-1, %rax\n	ret\n"
	"	.skip 64, 0x90\n"
	"at_the_comparison:\n"
	"	mov %rdi, %rax\n	jmp comparison\n"
	"compared_short:\n"
	"	mov %rdi, %rax\n	mov %rsi, %rdi\n	mov %rdx, %rsi\n	mov %rcx, %rdx\n"
	"	syscall\n"
	"	cmp $-4096, %eax\n"
	"	ja 1b\n	ret\n"
	"	.skip 64, 0x90\n"
	// musl's __syscall_cp_c
	"moved:\n"
	"	mov %rdi, %rax\n	mov %r8, %r10\n	mov %rsi, %rdi\n	mov %r9, %r8\n	mov %rdx, %rsi\n"
	"	mov 8(%rsp), %r9\n"
	"last_move:\n"
	"	mov %rcx, %rdx\n"
	"	syscall\n"
	"	ret\n"
	"within_the_moves:\n"
	"	mov %rdi, %rax\n	mov %rsi, %rdi\n	mov %rdx, %rsi\n	jmp last_move\n"
	"	.skip 64, 0x90\n"
	// musl's __syscall_cp_asm
	"stored:\n"
	"	sub $24, %rsp\n"
	"	mov %rdi, %rax\n	mov %rsi, %rdi\n	mov %rdx, %rsi\n	mov %rcx, %rdx\n"
	"	mov $0x1234, %r11d\n"
	"	mov %r11, 8(%rsp)\n"
	"	syscall\n"
	"	cmpl $0x1234, 8(%rsp)\n"
	"	jne 2f\n"
	"	add $24, %rsp\n	ret\n"
	"2:	ud2\n"
	"	.skip 64, 0x90\n"
	// Go's system calls of one kind
	"long_read:\n"
	"	movq $0, %rax\n"
	"	syscall\n"
	"	cmp $-4095, %rax\n"
	"	jae 3f\n	ret\n"
	"3:	mov $-1, %rax\n	ret\n"
	"end_of_forms:\n");
