/* Garbage over memory that belongs to somebody else.
 *
 * The writing loop calls nothing and keeps its state in registers, since it soon has destroyed everything else.
 */
#include "misbehave.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* Where the unikernel's memory appears, and what lies where in it: abi/src/layout.rs. */
#define WINDOW_BASE 0x200000000000ull

static const struct place {
    const char *name;
    uint64_t offset; /* from WINDOW_BASE */
    uint64_t bytes;
} places[] = {
    /* In an order that leaves what the guest itself needs to go on for last. */
    {"boot-page", 0x0, 0x1000},
    {"host-page", 0x1000, 0x1000},
    {"guest-page", 0x2000, 0x1000},
    {"start-block", 0x4000, 0x3c000},
    {"log-ring", 0x40000, 0x10000},
    {"streams", 0x600000, 0x800000},
    {"image", 0x200000, 0x200000},
    {"page-tables", 0x400000, 0x200000},
};

enum { PLACES = sizeof places / sizeof places[0] };

static inline __attribute__((always_inline)) void write_garbage(uint64_t from, uint64_t to) {
    uint64_t state = 0x9e3779b97f4a7c15ull ^ from;
    for (volatile uint64_t *word = (volatile uint64_t *)from; (uint64_t)word < to; word++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *word = state;
    }
}

const char *scribble_places(void) {
    return "boot-page host-page guest-page start-block log-ring streams image page-tables";
}

int scribble_over(const char *place) {
    for (int i = 0; i < PLACES; i++) {
        if (strcmp(places[i].name, place) == 0) {
            uint64_t start = WINDOW_BASE + places[i].offset;
            write_garbage(start, start + places[i].bytes);
            return 1;
        }
    }
    return 0;
}

/* The writable mappings of this process, its own stack last. Returns how many; 0 where there is no such file. */
static int read_mappings(uint64_t (*ranges)[2], int max) {
    FILE *maps = fopen("/proc/self/maps", "r");
    if (maps == NULL) {
        return 0;
    }
    uint64_t here = (uint64_t)__builtin_frame_address(0);
    uint64_t stack[2] = {0, 0};
    int count = 0;
    char line[512];
    while (count + 1 < max && fgets(line, sizeof line, maps) != NULL) {
        unsigned long long from, to;
        char access[5];
        if (sscanf(line, "%llx-%llx %4s", &from, &to, access) != 3 || access[1] != 'w') {
            continue;
        }
        if (from <= here && here < to) {
            stack[0] = from;
            stack[1] = to;
            continue;
        }
        ranges[count][0] = from;
        ranges[count++][1] = to;
    }
    fclose(maps);
    ranges[count][0] = stack[0];
    ranges[count++][1] = stack[1];
    return count;
}

void scribble_over_everything(void) {
    uint64_t ranges[64][2];
    int count = read_mappings(ranges, 64);
    if (count == 0) {
        for (; count < PLACES; count++) {
            ranges[count][0] = WINDOW_BASE + places[count].offset;
            ranges[count][1] = ranges[count][0] + places[count].bytes;
        }
        /* Then all that the library OS hands out, up to the end of memory, wherever that is. */
        ranges[count][0] = WINDOW_BASE + 0xe00000;
        ranges[count++][1] = UINT64_MAX;
    }
    for (int i = 0; i < count; i++) {
        write_garbage(ranges[i][0], ranges[i][1]);
    }
}
