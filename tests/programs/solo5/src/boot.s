# From the entry of Solo5's hvt to Rust code, in 64-bit mode from the beginning, with what the tender tells in rdi.
#
# The tender begins at privilege level 0. Where KVM has no hardware virtualisation it emulates what runs there, slowly and not all of it; so
# the rest runs at level 3, with page tables that allow it and a bitmap that lets it make hypercalls. With --ring=0 it stays.

    .section .note.solo5.abi, "a", @note
    .align 4
    .long 6                     # length of the name
    .long 16                    # length of the content
    .ascii "ABI1"
    .asciz "Solo5"
    .align 4
    .long 1                     # for hvt
    .long 2                     # version
    .long 0, 0

    .section .note.solo5.manifest, "a", @note
    .align 4
    .long 6
    .long 4 + 8 + 2 * 104
    .ascii "MFT1"
    .asciz "Solo5"
    .align 4
    .long 0
    .long 1                     # version
    .long 2                     # entries
    .skip 68
    .long 1 << 30               # the first is nothing
    .skip 32
    .asciz "service"
    .skip 60
    .long 2                     # a network card
    .skip 32

    .section .text.boot, "ax"
    .global solo5_start
solo5_start:
    cld
    movq %rdi, boot_information
    movq 24(%rdi), %rsi         # the command line
    movabsq $0x303d676e69722d2d, %rax   # --ring=0
1:  cmpb $0, (%rsi)
    je 2f
    cmpq %rax, (%rsi)
    je go_on
    incq %rsi
    jmp 1b

2:  movq $(page_directory_pointers + 7), page_map
    movl $(page_directories + 7), %eax
    movl $page_directory_pointers, %edi
    movl $4, %ecx
3:  movq %rax, (%rdi)
    addq $4096, %rax
    addq $8, %rdi
    decl %ecx
    jnz 3b
    movq boot_information, %rdi
    movq (%rdi), %rcx           # bytes of memory
    shrq $21, %rcx
    movl $0x87, %eax            # present, writable, for all levels, 2 MiB
    movl $page_directories, %edi
4:  movq %rax, (%rdi)
    addq $0x200000, %rax
    addq $8, %rdi
    decl %ecx
    jnz 4b
    movl $page_map, %eax
    movq %rax, %cr3

    movl $task_state, %eax
    movw %ax, task_descriptor + 2
    shrl $16, %eax
    movb %al, task_descriptor + 4
    movb %ah, task_descriptor + 7
    lgdt descriptor_table_pointer
    movl $0x38, %eax
    ltr %ax
    movl $0x33, %eax
    movl %eax, %ds
    movl %eax, %es
    movl $by_iret, %eax
    movw %ax, interrupt_table + 6 * 16
    shrl $16, %eax
    movw %ax, interrupt_table + 6 * 16 + 6
    lidt interrupt_table_pointer
    movq %rsp, %rsi
    movl $0x174, %ecx           # SYSENTER_CS
    movl $8, %eax
    xorl %edx, %edx
    wrmsr
    pushq $0x3002               # input and output for level 3
    popfq
    movl $go_on, %edx
    movq %rsi, %rcx
    sysexitq                    # KVM's emulator knows no other way; AMD's processors do not know this one

by_iret:                        # where an instruction that is not known leads to
    pushq $0x33
    pushq %rsi
    pushq $0x3002
    pushq $0x2b
    pushq $go_on
    iretq

go_on:
    andq $-16, %rsp
    movq boot_information, %rdi
    call kernel_main
6:  jmp 6b

    .section .data.boot, "aw"
    .align 8
descriptor_table:
    .quad 0
    .quad 0x00af9b000000ffff    # code of level 0, 64-bit
    .quad 0x00cf93000000ffff    # data of level 0
    .quad 0
    .quad 0
    .quad 0x00affb000000ffff    # code of level 3, where sysexit expects it
    .quad 0x00cff3000000ffff    # data of level 3
task_descriptor:
    .word task_state_end - task_state - 1
    .word 0
    .byte 0, 0x89, 0, 0
    .quad 0
descriptor_table_end:
descriptor_table_pointer:
    .word descriptor_table_end - descriptor_table - 1
    .quad descriptor_table
    .align 8
task_state:
    .skip 102
    .word 104                   # the bitmap of ports begins here: those of hypercalls may be used
    .skip 0x510 / 8
    .byte 0xff
task_state_end:
    .align 8
interrupt_table:                # the last one is that of unknown instructions; all else resets the machine
    .skip 6 * 16
    .word 0, 0x08, 0x8e00, 0
    .quad 0
interrupt_table_end:
interrupt_table_pointer:
    .word interrupt_table_end - interrupt_table - 1
    .quad interrupt_table
    .align 8
boot_information:
    .quad 0

    .section .bss.boot, "aw", @nobits
    .align 4096
page_map:
    .skip 4096
page_directory_pointers:
    .skip 4096
page_directories:
    .skip 16384
