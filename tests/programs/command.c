// A command for tests: what it does is its first argument.
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void say(int descriptor, const char *text) {
    if (write(descriptor, text, strlen(text)) < 0) {
        _exit(99);
    }
}

int main(int count, char **arguments) {
    const char *what = count > 1 ? arguments[1] : "";
    long number = count > 2 ? atol(arguments[2]) : 0;
    if (strcmp(what, "exit") == 0) {
        say(2, "lost to the log\n");
        return (int)number;
    }
    if (strcmp(what, "say-and-exit") == 0) {
        say(1, "some output\n");
        say(2, "some complaint\n");
        return (int)number;
    }
    if (strcmp(what, "signal") == 0) {
        raise((int)number);
    }
    if (strcmp(what, "crash") == 0) {
        __builtin_trap();
    }
    if (strcmp(what, "write") == 0) { // so many MB, then an exit status
        static char block[1 << 16];
        for (size_t at = 0; at < sizeof block; at++) {
            block[at] = (char)('a' + at % 26);
        }
        for (long left = number << 4; left > 0; left--) {
            for (size_t done = 0; done < sizeof block;) {
                ssize_t part = write(1, block + done, sizeof block - done);
                if (part < 0) {
                    return 98;
                }
                done += (size_t)part;
            }
        }
        return count > 3 ? atoi(arguments[3]) : 0;
    }
    if (strcmp(what, "sleep") == 0) {
        say(2, "sleeping\n");
        sleep((unsigned)number);
    }
    if (strcmp(what, "answer-then-sleep") == 0) { // it closes its output, and goes on
        say(1, "all of it\n");
        close(0);
        close(1);
        usleep(300000);
        return (int)number;
    }
    if (strcmp(what, "once") == 0) { // nothing of another invocation may be there
        int descriptor = open("/tmp/mark", O_CREAT | O_EXCL | O_WRONLY, 0600);
        say(1, descriptor < 0 ? "marked\n" : "pristine\n");
    }
    if (strcmp(what, "drip") == 0) { // a line, and the next one when it was asked for
        char byte;
        say(1, "ready\n");
        while (read(0, &byte, 1) == 1) {
            say(1, "drop\n");
        }
    }
    if (strcmp(what, "fork") == 0) {
        pid_t child = fork();
        say(1, child < 0 ? "refused\n" : "forked\n");
    }
    return 0;
}
