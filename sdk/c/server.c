/* Spore SDK for C: the HTTP/1.1 server around handle(). See spore.h for its use.
 *
 * One thread, one request at a time. Only plain POSIX calls are used, so the same program runs inside a sandbox and as
 * an ordinary process.
 *
 *     accept ──> idle ──request──> read head ──> read body ──> handle() ──> write ──┐
 *                 ^ │                  │             │                              │
 *                 │ └──client closed   └──refused────┴──> write error, close        │
 *                 └───────────────── keep-alive, nothing more pipelined ────────────┘
 */
#define _POSIX_C_SOURCE 200809L
#include "internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { IDLE_CONNECTIONS_MAX = 16 };

/* Buffers of an answer: what they begin with, and up to what size they are kept for the next one. */
enum { BUFFER_BYTES = 4000, KEPT_BYTES_MAX = 64 * 1024 };

int spore_write_all(int socket, struct iovec *parts, int count) {
    while (count > 0) {
        ssize_t written = writev(socket, parts, count);
        if (written < 0) {
            if (errno == EINTR) {
                continue;
            }
            return CLOSED;
        }
        size_t rest = (size_t)written;
        while (count > 0 && rest >= parts->iov_len) {
            rest -= parts->iov_len;
            parts++;
            count--;
        }
        if (count > 0) {
            parts->iov_base = (char *)parts->iov_base + rest;
            parts->iov_len -= rest;
        }
    }
    return OK;
}

static const char *reason_phrase(int status) {
    static const struct {
        int status;
        const char *phrase;
    } phrases[] = {
        {200, "OK"},
        {201, "Created"},
        {202, "Accepted"},
        {204, "No Content"},
        {301, "Moved Permanently"},
        {302, "Found"},
        {303, "See Other"},
        {304, "Not Modified"},
        {307, "Temporary Redirect"},
        {308, "Permanent Redirect"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {409, "Conflict"},
        {413, "Content Too Large"},
        {415, "Unsupported Media Type"},
        {422, "Unprocessable Content"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {503, "Service Unavailable"},
        {505, "HTTP Version Not Supported"},
    };
    for (size_t i = 0; i < sizeof phrases / sizeof phrases[0]; i++) {
        if (phrases[i].status == status) {
            return phrases[i].phrase;
        }
    }
    return "";
}

/* Writes status line, headers and body in one call where the socket takes them. */
static int write_response(int socket, const struct spore_response *response, int is_head, const struct framing *framing) {
    int has_body = response->status != 204 && response->status != 304;
    char line[160];
    char length_line[48] = "";
    if (has_body) {
        snprintf(length_line, sizeof length_line, "Content-Length: %zu\r\n", response->body_length);
    }
    const char *connection_line = "";
    if (!framing->keeps_alive) {
        connection_line = "Connection: close\r\n";
    } else if (framing->is_http_1_0) {
        connection_line = "Connection: keep-alive\r\n";
    }
    int length = snprintf(line, sizeof line, "HTTP/1.1 %d %s\r\n%s%s", response->status,
                          reason_phrase(response->status), length_line, connection_line);
    struct iovec parts[4];
    int count = 0;
    parts[count++] = (struct iovec){line, (size_t)length};
    if (response->headers_length > 0) {
        parts[count++] = (struct iovec){response->headers, response->headers_length};
    }
    parts[count++] = (struct iovec){(void *)"\r\n", 2};
    if (has_body && !is_head && response->body_length > 0) {
        parts[count++] = (struct iovec){response->body, response->body_length};
    }
    return spore_write_all(socket, parts, count);
}

/* Answers a request that the server itself turns down, then closes. */
static void refuse(struct connection *connection, int status) {
    struct spore_response response = SPORE_RESPONSE_INIT;
    struct framing framing = {.keeps_alive = 0};
    response.status = status;
    spore_append_header(&response, "Content-Type", "text/plain");
    switch (status) {
    case 413:
        spore_response_printf(&response, "the request body is longer than %zu bytes\n", spore_body_bytes_max);
        break;
    case 431:
        spore_response_printf(&response, "the request head is longer than %d bytes or has more than %d fields\n",
                              HEAD_BYTES_MAX, HEADERS_MAX);
        break;
    case 400:
        spore_response_printf(&response, "this is not a well-formed HTTP/1.1 request\n");
        break;
    default:
        spore_response_printf(&response, "%s\n", reason_phrase(status));
    }
    int outcome = write_response(connection->socket, &response, 0, &framing);
    spore_response_free(&response);
    if (outcome != OK) {
        return;
    }
    /* Closing a socket with unread bytes resets it, and the client may never see the answer: so read a bounded rest. */
    shutdown(connection->socket, SHUT_WR);
    char rest[4096];
    for (size_t drained = 0; drained < spore_body_bytes_max;) {
        ssize_t count = read(connection->socket, rest, sizeof rest);
        if (count <= 0) {
            return;
        }
        drained += (size_t)count;
    }
}

/* The buffers of the last answer, for the next one. The C library gives small stretches of memory back to the system at
 * once, and that costs more than all the rest of a small answer. */
static struct spore_response kept = SPORE_RESPONSE_INIT;

/* An empty response, with buffers. */
static struct spore_response take_response(void) {
    struct spore_response response = kept;
    kept = (struct spore_response)SPORE_RESPONSE_INIT;
    return response;
}

/* Keeps the buffers of a response, unless they are large. */
static void keep_response(struct spore_response *response) {
    if (response->body_capacity > KEPT_BYTES_MAX || response->headers_capacity > KEPT_BYTES_MAX) {
        spore_response_free(response);
        return;
    }
    struct spore_response empty = SPORE_RESPONSE_INIT;
    empty.body = response->body;
    empty.body_capacity = response->body_capacity;
    empty.headers = response->headers;
    empty.headers_capacity = response->headers_capacity;
    kept = empty;
}

/* Makes buffers before the first request. Without them everything works. */
static void make_buffers(void) {
    spore_reserve(&kept.body, &kept.body_capacity, 0, BUFFER_BYTES);
    spore_reserve(&kept.headers, &kept.headers_capacity, 0, BUFFER_BYTES);
}

/* Runs the handler and writes its answer. */
static int answer(const struct connection *connection, const struct spore_request *request, const struct framing *framing) {
    struct spore_response response = take_response();
    int result = handle(request, &response);
    if (result != 0 || response.has_failed || response.status < 200 || response.status > 599) {
        if (response.has_failed) {
            fprintf(stderr, "spore: a response header was not allowed, or memory ran out; answering 500\n");
        } else if (result == 0) {
            fprintf(stderr, "spore: %d is no HTTP status of an answer; answering 500\n", response.status);
        }
        spore_response_free(&response);
        response.status = 500;
        spore_append_header(&response, "Content-Type", "text/plain");
        spore_response_printf(&response, "the function failed\n");
    }
    /* What the handler printed belongs to the log now, not when the buffer happens to be full. */
    fflush(stdout);
    int outcome = write_response(connection->socket, &response, strcmp(request->method, "HEAD") == 0, framing);
    keep_response(&response);
    return outcome;
}

/* Reads and answers one request. Returns whether the connection stays open. */
static int serve_request(struct connection *connection) {
    struct spore_request request = {.method = "", .path = "", .query = "", .body = ""};
    struct framing framing = {.is_chunked = 0};
    int status = spore_read_request(connection, &request, &framing);
    if (status == CLOSED) {
        return 0;
    }
    if (status != OK) {
        refuse(connection, status);
        return 0;
    }
    int outcome = answer(connection, &request, &framing);
    spore_end_request(connection);
    return outcome == OK && framing.keeps_alive;
}

/* Serves what a connection has sent. Returns whether it stays open, with nothing of it left in input. */
static int serve_connection(int socket) {
    struct connection connection = {.socket = socket};
    int is_open;
    do {
        is_open = serve_request(&connection);
    } while (is_open && connection.end > 0);
    return is_open;
}

/* The idle connections, oldest first, behind the listening socket in the same array for poll. */
struct server {
    struct pollfd sockets[1 + IDLE_CONNECTIONS_MAX];
    size_t idle_count;
};

static void forget(struct server *server, size_t index) {
    memmove(&server->sockets[index], &server->sockets[index + 1],
            (server->idle_count - index) * sizeof server->sockets[0]);
    server->idle_count--;
}

/* Takes a new connection; blocks only if none is waiting. Returns its socket, or -1 to try again. */
static int take_connection(struct server *server) {
    int socket = accept(server->sockets[0].fd, NULL, NULL);
    if (socket >= 0 || errno == EINTR || errno == ECONNABORTED) {
        return socket;
    }
    if (server->idle_count == 0) {
        perror("spore: accept");
        exit(1);
    }
    /* Most likely out of descriptors: give an idle one back. */
    close(server->sockets[1].fd);
    forget(server, 1);
    return -1;
}

/* Waits until there is something to do and returns the socket to serve, no longer idle; -1 to try again. */
static int next_socket(struct server *server) {
    /* Without idle connections there is nothing to choose from, and accept alone saves a call. */
    if (server->idle_count == 0) {
        return take_connection(server);
    }
    if (poll(server->sockets, 1 + server->idle_count, -1) < 0) {
        if (errno == EINTR) {
            return -1;
        }
        perror("spore: poll");
        exit(1);
    }
    for (size_t i = 1; i <= server->idle_count; i++) {
        if (server->sockets[i].revents != 0) {
            int socket = server->sockets[i].fd;
            forget(server, i);
            return socket;
        }
    }
    return server->sockets[0].revents != 0 ? take_connection(server) : -1;
}

static void serve_forever(int listener) {
    static struct server server;
    server.sockets[0] = (struct pollfd){.fd = listener, .events = POLLIN};
    for (;;) {
        int socket = next_socket(&server);
        if (socket < 0) {
            continue;
        }
        spore_look_for_restore();
        if (!serve_connection(socket)) {
            close(socket);
            continue;
        }
        if (server.idle_count == IDLE_CONNECTIONS_MAX) {
            close(server.sockets[1].fd);
            forget(&server, 1);
        }
        server.sockets[1 + server.idle_count++] = (struct pollfd){.fd = socket, .events = POLLIN};
    }
}

/* A whole number from the environment; ends the program with an explanation if it is none in the range. */
static size_t number_from_environment(const char *name, size_t default_value, size_t max) {
    const char *text = getenv(name);
    if (text == NULL || *text == '\0') {
        return default_value;
    }
    char *end;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (errno != 0 || *end != '\0' || *text < '0' || *text > '9' || value == 0 || value > max) {
        fprintf(stderr, "spore: %s is \"%s\": set it to a number from 1 to %zu\n", name, text, max);
        exit(1);
    }
    return value;
}

static int listen_on(const char *address_text, uint16_t port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    if (inet_pton(AF_INET, address_text, &address.sin_addr) != 1) {
        fprintf(stderr, "spore: SPORE_ADDRESS is \"%s\": set it to an IPv4 address\n", address_text);
        exit(1);
    }
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    int yes = 1;
    if (listener >= 0) {
        setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    }
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 128) != 0) {
        fprintf(stderr, "spore: cannot listen on %s:%u: %s\n", address_text, (unsigned)port, strerror(errno));
        exit(1);
    }
    return listener;
}

/* Weak, so that a test of the handler can link the SDK and bring its own main. */
__attribute__((weak)) int main(void) {
    /* A client that goes away shows up as an error of writev. */
    signal(SIGPIPE, SIG_IGN);
    /* Lines of the log appear one by one even where standard output is no terminal. */
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
    spore_body_bytes_max = number_from_environment("SPORE_BODY_BYTES_MAX", spore_body_bytes_max, SIZE_MAX / 8);
    const char *address = getenv("SPORE_ADDRESS");
    size_t port = number_from_environment("PORT", 8080, UINT16_MAX);
    make_buffers();
    int listener = listen_on(address != NULL && *address != '\0' ? address : "0.0.0.0", (uint16_t)port);
    spore_prepare_snapshot();
    serve_forever(listener);
}
