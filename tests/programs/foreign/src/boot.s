# From the 32-bit entry of the PVH boot protocol to 64-bit Rust code: page tables that map the first 4 GiB to themselves.

    .section .note.pvh, "a", @note
    .align 4
    .long 4                     # length of the name
    .long 8                     # length of the value
    .long 18                    # XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad pvh_start

    .section .text.boot, "ax"
    .code32
    .global pvh_start
pvh_start:
    cli
    cld
    movl $boot_stack_end, %esp
    movl %ebx, start_info

    movl $(page_directory_pointers + 3), page_map
    movl $(page_directories + 3), %eax
    movl $page_directory_pointers, %edi
    movl $4, %ecx
1:  movl %eax, (%edi)
    addl $4096, %eax
    addl $8, %edi
    decl %ecx
    jnz 1b
    movl $0x83, %eax            # present, writable, 2 MiB
    movl $page_directories, %edi
    movl $2048, %ecx
2:  movl %eax, (%edi)
    addl $0x200000, %eax
    addl $8, %edi
    decl %ecx
    jnz 2b

    movl %cr4, %eax
    orl $0x620, %eax            # PAE, OSFXSR, OSXMMEXCPT
    movl %eax, %cr4
    movl $page_map, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx      # EFER
    rdmsr
    orl $0x100, %eax            # LME
    wrmsr
    movl %cr0, %eax
    andl $0xfffffffb, %eax      # no emulation of the floating-point unit
    orl $0x80000003, %eax       # paging, protection, MP
    movl %eax, %cr0
    lgdt descriptor_table_pointer
    ljmp $0x08, $long_start

    .code64
long_start:
    movw $0x10, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movl $boot_stack_end, %esp
    movl start_info, %edi
    call kernel_main
3:  hlt
    jmp 3b

# What an interrupt does: it is acknowledged, and whoever waits goes on with interrupts off.
    .global interrupt_entry
interrupt_entry:
    pushq %rax
    movb $0x20, %al
    outb %al, $0xa0
    outb %al, $0x20
    popq %rax
    andq $0xfffffffffffffdff, 16(%rsp)
    iretq

    .section .data.boot, "aw"
    .align 8
descriptor_table:
    .quad 0
    .quad 0x00af9a000000ffff    # code, 64-bit
    .quad 0x00cf92000000ffff    # data
descriptor_table_pointer:
    .word . - descriptor_table - 1
    .long descriptor_table
    .long 0

    .section .bss.boot, "aw", @nobits
    .align 4096
page_map:
    .skip 4096
page_directory_pointers:
    .skip 4096
page_directories:
    .skip 16384
boot_stack:
    .skip 131072
boot_stack_end:
start_info:
    .skip 8
