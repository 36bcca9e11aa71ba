/* Tries to get out of the process form: makes system calls of the host's kernel from within the library OS's image, the
 * only place from which the host's kernel hears them. Usage: escape ATTEMPT. Prints what came of it, if it lives. */
#include <stdio.h>
#include <string.h>

/* The library OS's image is at WINDOW_BASE + IMAGE_GPA, 2 MiB long; its last page is of no use to anyone. */
#define IMAGE 0x200000200000UL
#define IMAGE_BYTES 0x200000UL
#define PROCESS_PAGE 0x1f8000000000UL
#define RAM 3L
#define MODULE 4L
#define HEAD 5L
#define GATE 6L

static long host_call(long number, long a, long b, long c, long d, long e, long f)
{
    unsigned char *code = (unsigned char *)(IMAGE + IMAGE_BYTES - 4096);
    memcpy(code, "\x0f\x05\xc3", 3); /* syscall; ret */
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    long result;
    __asm__ volatile("call *%[code]"
                     : "=a"(result), "+r"(r10), "+r"(r8), "+r"(r9)
                     : [code] "r"(code), "a"(number), "D"(a), "S"(b), "d"(c)
                     : "rcx", "r11", "memory", "cc");
    return result;
}

static long attempt(const char *name)
{
    static const char path[] = "/etc/passwd";
    static const char address[16] = {2, 0, 31, 144, 127, 0, 0, 1}; /* 127.0.0.1:8080 */
    if (!strcmp(name, "open-a-host-file")) return host_call(2, (long)path, 0, 0, 0, 0, 0);
    if (!strcmp(name, "make-a-socket")) return host_call(41, 2, 1, 0, 0, 0, 0);
    if (!strcmp(name, "connect-to-loopback")) return host_call(42, RAM, (long)address, 16, 0, 0, 0);
    if (!strcmp(name, "signal-the-parent")) return host_call(62, 1, 9, 0, 0, 0, 0);
    if (!strcmp(name, "trace-a-process")) return host_call(101, 16, 1, 0, 0, 0, 0);
    if (!strcmp(name, "mount")) return host_call(165, (long)path, (long)path, 0, 4096, 0, 0);
    if (!strcmp(name, "fork")) return host_call(57, 0, 0, 0, 0, 0, 0);
    if (!strcmp(name, "make-a-thread")) return host_call(56, 0x10f00, 0, 0, 0, 0, 0);
    if (!strcmp(name, "execute")) return host_call(59, (long)path, 0, 0, 0, 0, 0);
    if (!strcmp(name, "write-to-a-descriptor")) return host_call(1, RAM, (long)path, 4, 0, 0, 0);
    if (!strcmp(name, "write-another-process")) return host_call(311, 1, 0, 0, 0, 0, 0);
    if (!strcmp(name, "take-anonymous-memory")) return host_call(9, 0, 1 << 30, 3, 0x22, -1, 0);
    if (!strcmp(name, "map-privately")) return host_call(9, 0x500000000000, 4096, 3, 0x12, MODULE, 0);
    if (!strcmp(name, "map-another-descriptor")) return host_call(9, 0x500000000000, 4096, 1, 0x11, GATE, 0);
    if (!strcmp(name, "wait-at-another-word")) return host_call(202, IMAGE, 0, 0, 0, 0, 0);
    if (!strcmp(name, "allow-all-calls")) return host_call(157, 59, 0, 0, 0, 0, 0);
    if (!strcmp(name, "end-without-a-word")) return host_call(231, 7, 0, 0, 0, 0, 0);
    if (!strcmp(name, "32-bit-call")) {
        unsigned char *code = (unsigned char *)(IMAGE + IMAGE_BYTES - 4096);
        memcpy(code, "\xcd\x80\xc3", 3); /* int 0x80; ret */
        long result = 20;
        __asm__ volatile("call *%[code]" : "+a"(result) : [code] "r"(code) : "rcx", "r11", "memory");
        return result;
    }
    /* These are allowed, and must be of no use. */
    if (!strcmp(name, "write-the-root")) return host_call(9, 0x500000000000, 4096, 3, 0x11, MODULE, 0);
    if (!strcmp(name, "map-a-head-of-nobody")) return host_call(9, 0x500000000000, 4096, 1, 0x11, HEAD, 0);
    if (!strcmp(name, "unmap-everything")) return host_call(11, 0, 0x7ffffffff000, 0, 0, 0, 0);
    if (!strcmp(name, "map-beyond-all-bounds")) {
        long result = host_call(9, 0x500000000000, 1L << 40, 3, 0x11, RAM, 1L << 40);
        return result < 0 ? result : *(volatile char *)0x500000000000;
    }
    if (!strcmp(name, "forge-the-turn")) {
        *(volatile unsigned *)PROCESS_PAGE = 0xdeadbeef;
        for (;;) __asm__ volatile("pause");
    }
    if (!strcmp(name, "forge-a-stop")) {
        /* Says that it has stopped, for no known reason, and runs on. */
        ((volatile unsigned *)PROCESS_PAGE)[1] = 77;
        *(volatile unsigned *)PROCESS_PAGE = 2;
        for (;;) __asm__ volatile("pause");
    }
    return -1;
}

int main(int count, char **arguments)
{
    if (count != 2) return 2;
    printf("trying\n");
    fflush(stdout);
    printf("%ld\n", attempt(arguments[1]));
    return 0;
}
