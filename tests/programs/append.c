// A command for tests of chains and triggers: its standard input, its first argument, and the file that it was called for. A
// second argument is its exit status.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int put(const char *bytes, size_t length) {
    while (length > 0) {
        ssize_t part = write(1, bytes, length);
        if (part <= 0) {
            return 1;
        }
        bytes += part;
        length -= (size_t)part;
    }
    return 0;
}

int main(int count, char **arguments) {
    static char block[1 << 16];
    ssize_t length;
    while ((length = read(0, block, sizeof block)) > 0) {
        if (put(block, (size_t)length)) {
            return 98;
        }
    }
    const char *file = getenv("Http_X_Spore_File"), *change = getenv("Http_X_Spore_Change");
    if (count > 1 && put(arguments[1], strlen(arguments[1]))) {
        return 98;
    }
    if (file && change) {
        int n = snprintf(block, sizeof block, " %s %s", file, change);
        if (put(block, (size_t)n)) {
            return 98;
        }
    }
    return count > 2 ? atoi(arguments[2]) : 0;
}
