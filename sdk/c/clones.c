/* Spore SDK for C: what the function wants to do before a snapshot, and in each clone of it. See spore.h. */
#define _POSIX_C_SOURCE 200809L
#include "internal.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Tells the generation of the instance's memory: read finds something only when that is another one than before. */
static const char device_path[] = "/dev/sysgenid";
static int device = -1;

static void end_after(const char *name) {
    fprintf(stderr, "spore: %s() failed\n", name);
    exit(1);
}

void spore_prepare_snapshot(void) {
    const char *initialization = getenv("SPORE_INITIALIZATION");
    if (initialization == NULL || strcmp(initialization, "snapshot") != 0) {
        return;
    }
    if (before_snapshot != NULL && before_snapshot() != 0) {
        end_after("before_snapshot");
    }
    if (after_restore != NULL) {
        /* To read only: then nothing waits for it to be confirmed. */
        device = open(device_path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
        if (device < 0) {
            perror("spore: /dev/sysgenid");
            exit(1);
        }
    }
}

void spore_look_for_restore(void) {
    uint32_t generation;
    if (device < 0 || read(device, &generation, sizeof generation) != sizeof generation) {
        return;
    }
    if (after_restore() != 0) {
        end_after("after_restore");
    }
    /* There is one restore in the life of an instance. */
    close(device);
    device = -1;
}
