/* Ends in all the ways that a program can; what it says is the same wherever it runs. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int count, char **arguments) {
    const char *what = count > 1 ? arguments[1] : "";
    const char *argument = count > 2 ? arguments[2] : "";
    if (strcmp(what, "exit") == 0)
        return atoi(argument);
    if (strcmp(what, "abort") == 0)
        abort();
    if (strcmp(what, "fault") == 0) {
        int *volatile nowhere = (int *)8;
        *nowhere = 1;
    }
    if (strcmp(what, "raise") == 0)
        raise(atoi(argument));
    if (strcmp(what, "spin") == 0) {
        puts("spinning");
        fflush(stdout);
        for (;;)
            ;
    }
    if (strcmp(what, "lines") == 0) {
        for (long line = 0; line < atol(argument); line++)
            printf("line %ld\n", line);
        return 0;
    }
    if (strcmp(what, "input") == 0) {
        char byte;
        printf("%zd\n", read(0, &byte, 1));
        return 0;
    }
    for (int number = 0; number < count; number++)
        printf("[%s]", arguments[number]);
    const char *greeting = getenv("GREETING");
    printf(" %s\n", greeting ? greeting : "no greeting");
    fflush(stdout);
    fputs("an error without a line feed", stderr);
    const char bytes[] = {0, (char)0xff, '\n', 0};
    return write(1, bytes, sizeof bytes) == sizeof bytes ? 0 : 1;
}
