// Redirects whoever asks to where the variable `destination` says, as a function behind of-watchdog does.
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(void) {
    const char *port = getenv("PORT");
    const char *destination = getenv("destination");
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons((unsigned short)atoi(port ? port : "8080")),
    };
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 16) != 0) {
        return 1;
    }
    char answer[1024];
    int length = snprintf(answer, sizeof answer,
                          "HTTP/1.1 302 Found\r\nLocation: %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                          destination ? destination : "/");
    for (;;) {
        int connection = accept(listener, NULL, NULL);
        char request[8192];
        size_t filled = 0;
        while (filled < sizeof request - 1) {
            ssize_t count = read(connection, request + filled, sizeof request - 1 - filled);
            if (count <= 0) {
                break;
            }
            filled += (size_t)count;
            request[filled] = 0;
            if (strstr(request, "\r\n\r\n")) {
                break;
            }
        }
        if (write(connection, answer, (size_t)length) < 0) {
            return 2;
        }
        close(connection);
    }
}
