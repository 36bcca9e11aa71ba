#include <spore.h>

#include "misbehave.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Not inlined, so that crash reports name them. */
#define MODE static __attribute__((noinline)) void

MODE call_null(void) {
    void (*volatile function)(void) = NULL;
    function();
}

MODE write_null(void) {
    volatile int *volatile pointer = NULL;
    *pointer = 1;
}

/* The compiler must not know that the recursion has no end. */
static volatile int is_endless = 1;

static __attribute__((noinline)) int recurse(volatile char *above) {
    volatile char frame[4096];
    if (!is_endless) {
        return 0;
    }
    frame[0] = above[0];
    return recurse(frame) + frame[0];
}

MODE overflow_stack(void) {
    volatile char start[1] = {1};
    printf("%d\n", recurse(start));
}

MODE run_illegal_instruction(void) {
    __asm__ volatile("ud2");
}

MODE run_privileged_instruction(void) {
    __asm__ volatile("hlt");
}

MODE divide_by_zero(void) {
    /* In C this would be undefined, and compilers make something harmless of it. */
    __asm__ volatile("xorl %%edx, %%edx\n\tmovl $1, %%eax\n\tdivl %%edx" ::: "eax", "edx", "cc");
}

MODE hang(void) {
    for (;;) {
        __asm__ volatile("" ::: "memory");
    }
}

/* Touches memory until there is no more; then goes on without checking, as careless programs do. */
MODE exhaust_memory(void) {
    enum { PIECE_BYTES = 1 << 20 };
    for (size_t total = 0;; total += PIECE_BYTES) {
        char *piece = malloc(PIECE_BYTES);
        if (piece == NULL) {
            fprintf(stderr, "malloc refused after %zu MiB\n", total >> 20);
            abort();
        }
        memset(piece, 0x5a, PIECE_BYTES);
    }
}

MODE exit_quietly(void) {
    exit(0);
}

MODE exit_with_status(void) {
    exit(3);
}

MODE abort_loudly(void) {
    abort();
}

/* One gigabyte in lines of 64 bytes. */
MODE print_gigabyte(void) {
    static const char line[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde\n";
    for (size_t written = 0; written < (size_t)1 << 30; written += sizeof line - 1) {
        fwrite(line, 1, sizeof line - 1, stdout);
    }
}

/* A line that never ends. */
MODE print_long_line(void) {
    for (size_t written = 0; written < 1 << 20; written++) {
        putchar('x');
    }
}

MODE scribble_everything(void) {
    scribble_over_everything();
}

static const struct {
    const char *path;
    void (*run)(void);
    const char *what;
} modes[] = {
    {"/null-call", call_null, "calls a null pointer"},
    {"/null-write", write_null, "writes through a null pointer"},
    {"/stack-overflow", overflow_stack, "recurses without end"},
    {"/illegal-instruction", run_illegal_instruction, "runs ud2"},
    {"/privileged-instruction", run_privileged_instruction, "runs hlt"},
    {"/divide-by-zero", divide_by_zero, "divides by zero"},
    {"/hang", hang, "computes for ever"},
    {"/exhaust-memory", exhaust_memory, "allocates and touches memory until there is no more"},
    {"/exit", exit_quietly, "exits with status 0"},
    {"/exit-status", exit_with_status, "exits with status 3"},
    {"/abort", abort_loudly, "calls abort"},
    {"/print-gigabyte", print_gigabyte, "prints a gigabyte in lines, then answers"},
    {"/print-long-line", print_long_line, "prints a line of a megabyte, then answers"},
    {"/scribble", scribble_everything, "writes garbage over every writable page"},
};

int handle(const struct spore_request *request, struct spore_response *response) {
    spore_response_header(response, "Content-Type", "text/plain");
    if (strncmp(request->path, "/scribble/", 10) == 0) {
        if (!scribble_over(request->path + 10)) {
            response->status = 404;
            return spore_response_printf(response, "there is no place %s\n", request->path + 10);
        }
        return spore_response_printf(response, "survived %s\n", request->path);
    }
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        if (strcmp(request->path, modes[i].path) == 0) {
            modes[i].run();
            return spore_response_printf(response, "survived %s\n", request->path);
        }
    }
    if (strcmp(request->path, "/") != 0) {
        response->status = 404;
    }
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        spore_response_printf(response, "%-24s %s\n", modes[i].path, modes[i].what);
    }
    return spore_response_printf(response, "%-24s writes garbage over one place: %s\n", "/scribble/NAME",
                                 scribble_places());
}
