// A runtime of AWS Lambda's in its smallest form: it asks for events and posts what it makes of them. What it does depends
// on a word in the event.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#define BYTES_MAX (8 << 20)

static char received[BYTES_MAX + 65536], sent[BYTES_MAX + 65536];
static char id[200];
static char *body;
static size_t body_bytes;

static void die(const char *what)
{
    perror(what);
    exit(9);
}

static int open_connection(void)
{
    const char *api = getenv("AWS_LAMBDA_RUNTIME_API");
    struct sockaddr_in address = {.sin_family = AF_INET};
    char host[32];
    unsigned port;
    if (!api || sscanf(api, "%31[^:]:%u", host, &port) != 2)
        die("AWS_LAMBDA_RUNTIME_API");
    address.sin_port = htons(port);
    inet_pton(AF_INET, host, &address.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address))
        die("connect");
    return fd;
}

static void send_all(int fd, const char *bytes, size_t count)
{
    while (count > 0) {
        ssize_t done = send(fd, bytes, count, MSG_NOSIGNAL);
        if (done <= 0)
            die("send");
        bytes += done, count -= done;
    }
}

static void say(int fd, const char *format, ...)
{
    char text[4096];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    send_all(fd, text, length);
}

// Reads an answer; its status.
static int read_answer(int fd)
{
    size_t have = 0, wanted = 0;
    body = NULL;
    while (!body || have < wanted) {
        ssize_t count = recv(fd, received + have, sizeof received - 1 - have, 0);
        if (count <= 0)
            die("recv");
        have += count;
        received[have] = 0;
        char *end = body ? NULL : strstr(received, "\r\n\r\n");
        if (end) {
            char *length = strcasestr(received, "content-length:");
            body = end + 4;
            body_bytes = length && length < end ? strtoul(length + 15, NULL, 10) : 0;
            wanted = body - received + body_bytes;
        }
    }
    return atoi(received + 9);
}

static int post(int fd, const char *path, const char *fields, const char *bytes, size_t count)
{
    say(fd, "POST /2018-06-01/runtime/%s HTTP/1.1\r\nHost: x\r\n%sContent-Length: %zu\r\n\r\n", path, fields, count);
    send_all(fd, bytes, count);
    return read_answer(fd);
}

static void chunk(int fd, const char *bytes, size_t count)
{
    say(fd, "%zx\r\n", count);
    send_all(fd, bytes, count);
    say(fd, "\r\n");
}

static void expect(int wanted, int status)
{
    if (status != wanted) {
        printf("%d is not %d\n", status, wanted);
        exit(8);
    }
}

int main(void)
{
    unsigned count = 0;
    puts("booted");
    fflush(stdout);
    int fd = open_connection();
    if (getenv("STARTS_BADLY")) {
        const char *why = "{\"errorMessage\":\"no database\",\"errorType\":\"Setup\"}";
        post(fd, "init/error", "Lambda-Runtime-Function-Error-Type: Setup.Failed\r\n", why, strlen(why));
        pause();
    }
    if (getenv("NEVER_ASKS"))
        pause();
    if (getenv("LEAVES"))
        return 5;
    if (getenv("RESTORES")) {
        say(fd, "GET /2018-06-01/runtime/restore/next HTTP/1.1\r\nHost: x\r\n\r\n");
        expect(200, read_answer(fd));
    }
    for (;;) {
        char path[256], response[300];
        say(fd, "GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\n\r\n");
        expect(200, read_answer(fd));
        count++;
        char *found = strcasestr(received, "lambda-runtime-aws-request-id:");
        if (!found || sscanf(found + 30, "%199s", id) != 1)
            die("no id");
        char *deadline = strcasestr(received, "lambda-runtime-deadline-ms:");
        char *arn = strcasestr(received, "lambda-runtime-invoked-function-arn:");
        char *trace = strcasestr(received, "lambda-runtime-trace-id:");
        char event[200];
        size_t shown = body_bytes < sizeof event ? body_bytes : sizeof event - 1;
        memcpy(event, body, shown);
        event[shown] = 0;
        snprintf(path, sizeof path, "invocation/%s/response", id);
        body[body_bytes] = 0;
        if (strstr(event, "do-error")) {
            const char *why = "{\"errorMessage\":\"not today\",\"errorType\":\"Refused\",\"stackTrace\":[\"a\"]}";
            snprintf(path, sizeof path, "invocation/%s/error", id);
            expect(202, post(fd, path, "Lambda-Runtime-Function-Error-Type: Refused\r\n", why, strlen(why)));
        } else if (strstr(event, "do-crash")) {
            abort();
        } else if (strstr(event, "do-exit")) {
            exit(3);
        } else if (strstr(event, "do-hang")) {
            pause();
        } else if (strstr(event, "do-half")) {
            say(fd, "POST /2018-06-01/runtime/%s HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf", path);
            exit(4);
        } else if (strstr(event, "do-big")) {
            memset(sent, 'x', 7 << 20);
            post(fd, path, "", sent, 7 << 20);
        } else if (strstr(event, "do-nonsense")) {
            say(fd, "nonsense\r\n\r\n");
            read_answer(fd);
            close(fd);
            fd = open_connection();
            expect(202, post(fd, path, "", "\"still here\"", 12));
        } else if (strstr(event, "do-stray")) {
            expect(400, post(fd, "invocation/another/response", "", "{}", 2));
            expect(404, post(fd, "telemetry", "", "{}", 2));
            expect(202, post(fd, path, "", "\"found\"", 7));
            expect(400, post(fd, path, "", "\"twice\"", 7));
        } else if (strstr(event, "do-answer")) {
            const char *answer = "{\"statusCode\":418,\"headers\":{\"X-Kind\":\"teapot\"},\"cookies\":[\"a=b\",\"c=d\"],"
                                 "\"body\":\"AP8=\",\"isBase64Encoded\":true}";
            expect(202, post(fd, path, "", answer, strlen(answer)));
        } else if (strstr(event, "do-wrong")) {
            const char *answer = "{\"statusCode\":200,\"body\":{}}";
            expect(202, post(fd, path, "", answer, strlen(answer)));
        } else if (strstr(event, "do-stream")) {
            const char *head = "{\"statusCode\":203,\"headers\":{\"content-type\":\"text/plain\"}}";
            int is_broken = strstr(event, "do-stream-broken") != NULL;
            say(fd,
                "POST /2018-06-01/runtime/%s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
                "Content-Type: application/vnd.awslambda.http-integration-response\r\n"
                "Lambda-Runtime-Function-Response-Mode: streaming\r\n"
                "Trailer: Lambda-Runtime-Function-Error-Type\r\n\r\n",
                path);
            chunk(fd, head, strlen(head));
            chunk(fd, "\0\0\0\0\0\0\0\0one ", 12);
            chunk(fd, "two ", 4);
            chunk(fd, "three", 5);
            say(fd, "0\r\n%s\r\n", is_broken ? "Lambda-Runtime-Function-Error-Type: Late\r\n" : "");
            expect(202, read_answer(fd));
        } else {
            // On a connection of its own, in chunks: as clients do that keep none, or do not know the length.
            int other = open_connection();
            int length = snprintf(response, sizeof response,
                                  "{\"count\":%u,\"id\":\"%s\",\"fields\":%d,\"handler\":\"%s\",\"event\":", count, id,
                                  !!deadline + 2 * !!arn + 4 * !!trace, getenv("_HANDLER") ? getenv("_HANDLER") : "");
            say(other,
                "POST /2018-06-01/runtime/%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
                path);
            chunk(other, response, length);
            for (size_t done = 0; done < body_bytes;) {
                size_t part = body_bytes - done < 10000 ? body_bytes - done : 10000;
                chunk(other, body + done, part);
                done += part;
            }
            chunk(other, "}", 1);
            say(other, "0\r\n\r\n");
            expect(202, read_answer(other));
            if (recv(other, received, 1, 0) != 0)
                die("the connection is not closed");
            close(other);
        }
    }
}
