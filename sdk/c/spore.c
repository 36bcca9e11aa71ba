/* Spore SDK for C: the HTTP/1.1 server around handle(). See spore.h for its use.
 *
 * One thread, one request at a time. Only plain POSIX calls are used, so the same program runs inside a sandbox and as
 * an ordinary process.
 *
 *     accept ──> idle ──request──> read head ──> read body ──> handle() ──> write ──┐
 *                 ^ │                  │             │                              │
 *                 │ └──client closed   └──refused────┴──> write error, close        │
 *                 └───────────────── keep-alive, nothing more pipelined ────────────┘
 *
 * Connections share one input buffer: a connection goes back to the idle ones only when every byte that it has sent
 * was used. The buffer holds the head of a request, which stays in place (the strings of the request point into it),
 * and behind it a window through which the body is read:
 *
 *     0          head_end        start      end             sizeof input
 *     | head      | used body     | unused   | free          |
 */
#define _POSIX_C_SOURCE 200809L
#include "spore.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
    HEAD_BYTES_MAX = 64 * 1024,
    BODY_WINDOW_BYTES = 16 * 1024,
    HEADERS_MAX = 128,
    CHUNK_LINE_BYTES_MAX = 1024,
    IDLE_CONNECTIONS_MAX = 16,
    /* A body buffer larger than this is not kept for the next request. */
    BODY_BYTES_KEPT = 256 * 1024,
};

static const size_t BODY_BYTES_MAX_DEFAULT = 16 * 1024 * 1024;

/* Outcomes of reading that are no HTTP status. */
enum { OK = 0, CLOSED = -1 };

struct connection {
    int socket;
    size_t head_end; /* where the head of the present request ends in input */
    size_t start;    /* first byte not yet used */
    size_t end;      /* first byte not yet received */
};

/* How the body of a request is framed, and what follows from the head for the connection. */
struct framing {
    int is_chunked;
    int has_length;
    size_t length;
    int expects_continue;
    int is_http_1_0;
    int keeps_alive;
    int has_host;
};

static char input[HEAD_BYTES_MAX + BODY_WINDOW_BYTES];
static struct spore_header header_table[HEADERS_MAX];
static char *body;
static size_t body_capacity;
static size_t body_bytes_max;

/* ---- What handlers call ---------------------------------------------------------------------------------------- */

const char *spore_request_header(const struct spore_request *request, const char *name) {
    for (size_t i = 0; i < request->header_count; i++) {
        if (strcasecmp(request->headers[i].name, name) == 0) {
            return request->headers[i].value;
        }
    }
    return NULL;
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    if (c >= 'A' && c <= 'F') {
        return c - 'A' + 10;
    }
    return -1;
}

/* The byte at *text in application/x-www-form-urlencoded, moving *text behind it; -1 if malformed. */
static int decoded_byte(const char **text, const char *end) {
    char c = *(*text)++;
    if (c == '+') {
        return ' ';
    }
    if (c != '%') {
        return (unsigned char)c;
    }
    if (end - *text < 2) {
        return -1;
    }
    int high = hex_digit((*text)[0]);
    int low = hex_digit((*text)[1]);
    *text += 2;
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

static int is_parameter(const char *key, const char *key_end, const char *name) {
    while (key < key_end) {
        int c = decoded_byte(&key, key_end);
        if (c < 0 || *name == '\0' || (unsigned char)*name != c) {
            return 0;
        }
        name++;
    }
    return *name == '\0';
}

long spore_request_query(const struct spore_request *request, const char *name, char *value, size_t size) {
    const char *pair = request->query;
    while (*pair != '\0') {
        const char *pair_end = pair + strcspn(pair, "&");
        const char *equals = memchr(pair, '=', (size_t)(pair_end - pair));
        const char *key_end = equals != NULL ? equals : pair_end;
        if (is_parameter(pair, key_end, name)) {
            const char *text = equals != NULL ? equals + 1 : pair_end;
            size_t length = 0;
            while (text < pair_end) {
                int c = decoded_byte(&text, pair_end);
                if (c < 0 || length + 1 >= size) {
                    return -1;
                }
                value[length++] = (char)c;
            }
            if (size == 0) {
                return -1;
            }
            value[length] = '\0';
            return (long)length;
        }
        pair = *pair_end == '&' ? pair_end + 1 : pair_end;
    }
    return -1;
}

/* Makes room for `extra` more bytes behind `length`, and for one NUL byte; at least doubles, so that appending stays
 * linear. */
static int reserve(char **data, size_t *capacity, size_t length, size_t extra) {
    if (extra >= SIZE_MAX / 4 || length >= SIZE_MAX / 4) {
        return -1;
    }
    size_t needed = length + extra + 1;
    if (needed <= *capacity) {
        return 0;
    }
    size_t wanted = *capacity > 0 ? *capacity * 2 : 512;
    if (wanted < needed) {
        wanted = needed;
    }
    char *moved = realloc(*data, wanted);
    if (moved == NULL) {
        return -1;
    }
    *data = moved;
    *capacity = wanted;
    return 0;
}

static int response_failed(struct spore_response *response) {
    response->has_failed = 1;
    return -1;
}

int spore_response_append(struct spore_response *response, const void *data, size_t length) {
    if (reserve(&response->body, &response->body_capacity, response->body_length, length) != 0) {
        return response_failed(response);
    }
    if (length > 0) {
        memcpy(response->body + response->body_length, data, length);
    }
    response->body_length += length;
    return 0;
}

int spore_response_printf(struct spore_response *response, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    size_t free_bytes = response->body_capacity - response->body_length;
    char *end = response->body != NULL ? response->body + response->body_length : NULL;
    int length = vsnprintf(end, end != NULL ? free_bytes : 0, format, arguments);
    va_end(arguments);
    if (length < 0) {
        return response_failed(response);
    }
    if ((size_t)length >= free_bytes) {
        if (reserve(&response->body, &response->body_capacity, response->body_length, (size_t)length) != 0) {
            return response_failed(response);
        }
        va_start(arguments, format);
        vsnprintf(response->body + response->body_length, (size_t)length + 1, format, arguments);
        va_end(arguments);
    }
    response->body_length += (size_t)length;
    return 0;
}

static int is_token_byte(char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

static int is_token(const char *text) {
    const char *c = text;
    while (is_token_byte(*c)) {
        c++;
    }
    return *c == '\0' && c != text;
}

static int is_control(char c) {
    return ((unsigned char)c < ' ' && c != '\t') || c == 0x7f;
}

static int is_header_value(const char *text) {
    while (*text != '\0' && !is_control(*text)) {
        text++;
    }
    return *text == '\0';
}

static int append_header(struct spore_response *response, const char *name, const char *value) {
    size_t length = strlen(name) + strlen(value) + 4;
    if (reserve(&response->headers, &response->headers_capacity, response->headers_length, length) != 0) {
        return response_failed(response);
    }
    snprintf(response->headers + response->headers_length, length + 1, "%s: %s\r\n", name, value);
    response->headers_length += length;
    return 0;
}

int spore_response_header(struct spore_response *response, const char *name, const char *value) {
    if (!is_token(name) || !is_header_value(value) || strcasecmp(name, "Connection") == 0 ||
        strcasecmp(name, "Content-Length") == 0 || strcasecmp(name, "Transfer-Encoding") == 0) {
        return response_failed(response);
    }
    return append_header(response, name, value);
}

void spore_response_free(struct spore_response *response) {
    free(response->body);
    free(response->headers);
    *response = (struct spore_response)SPORE_RESPONSE_INIT;
}

/* ---- Reading --------------------------------------------------------------------------------------------------- */

/* Receives more into the free part of input. */
static int receive(struct connection *connection) {
    for (;;) {
        ssize_t count = read(connection->socket, input + connection->end, sizeof input - connection->end);
        if (count > 0) {
            connection->end += (size_t)count;
            return OK;
        }
        if (count == 0 || errno != EINTR) {
            return CLOSED;
        }
    }
}

/* Receives more of a body, using the window behind the head over and over. */
static int receive_body(struct connection *connection) {
    if (connection->start == connection->end) {
        connection->start = connection->end = connection->head_end;
    } else if (connection->end == sizeof input) {
        size_t unused = connection->end - connection->start;
        memmove(input + connection->head_end, input + connection->start, unused);
        connection->start = connection->head_end;
        connection->end = connection->start + unused;
    }
    return receive(connection);
}

/* Receives the whole head, up to its empty line. The buffer starts with it. */
static int receive_head(struct connection *connection) {
    size_t searched = 0;
    for (;;) {
        /* Empty lines before a request are skipped, as RFC 9112 section 2.2 asks. */
        size_t skip = 0;
        while (skip + 1 < connection->end && input[skip] == '\r' && input[skip + 1] == '\n') {
            skip += 2;
        }
        if (skip > 0) {
            memmove(input, input + skip, connection->end - skip);
            connection->end -= skip;
            searched = 0;
        }
        for (size_t i = searched; i + 3 < connection->end; i++) {
            if (memcmp(input + i, "\r\n\r\n", 4) == 0) {
                connection->head_end = connection->start = i + 4;
                return i + 4 > HEAD_BYTES_MAX ? 431 : OK;
            }
        }
        searched = connection->end >= 3 ? connection->end - 3 : 0;
        if (connection->end >= HEAD_BYTES_MAX) {
            return 431;
        }
        if (receive(connection) != OK) {
            return CLOSED;
        }
    }
}

/* Splits "METHOD /path?query HTTP/1.1" in place. */
static int parse_request_line(char *line, struct spore_request *request, struct framing *framing) {
    char *method_end = strchr(line, ' ');
    if (method_end == NULL) {
        return 400;
    }
    *method_end = '\0';
    char *target = method_end + 1;
    char *target_end = strchr(target, ' ');
    if (!is_token(line) || target_end == NULL || target_end == target) {
        return 400;
    }
    *target_end = '\0';
    const char *version = target_end + 1;
    if (strncmp(version, "HTTP/", 5) != 0) {
        return 400;
    }
    if (strcmp(version, "HTTP/1.1") != 0 && strcmp(version, "HTTP/1.0") != 0) {
        return 505;
    }
    for (const char *c = target; *c != '\0'; c++) {
        if (is_control(*c) || *c == '\t') {
            return 400;
        }
    }
    framing->is_http_1_0 = version[7] == '0';
    framing->keeps_alive = !framing->is_http_1_0;
    if (strncasecmp(target, "http://", 7) == 0) {
        target += 7;
        target += strcspn(target, "/?");
    } else if (target[0] != '/' && strcmp(target, "*") != 0) {
        return 400;
    }
    char *question = strchr(target, '?');
    request->query = question != NULL ? question + 1 : "";
    if (question != NULL) {
        *question = '\0';
    }
    request->method = line;
    request->path = *target != '\0' ? target : "/";
    return OK;
}

static int parse_length(const char *text, struct framing *framing) {
    size_t length = 0;
    if (*text == '\0') {
        return 400;
    }
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9') {
            return 400;
        }
        if (length > SIZE_MAX / 16) {
            return 413;
        }
        length = length * 10 + (size_t)(*text - '0');
    }
    if (framing->has_length && framing->length != length) {
        return 400;
    }
    framing->has_length = 1;
    framing->length = length;
    return OK;
}

/* Whether a comma-separated list holds a word, without regard to case. */
static int has_word(const char *list, const char *word) {
    size_t length = strlen(word);
    while (*list != '\0') {
        list += strspn(list, " \t,");
        size_t item = strcspn(list, " \t,");
        if (item == length && strncasecmp(list, word, length) == 0) {
            return 1;
        }
        list += item;
    }
    return 0;
}

/* Takes from a header field what the server itself needs. */
static int apply_header(const struct spore_header *header, struct framing *framing) {
    if (strcasecmp(header->name, "Content-Length") == 0) {
        return parse_length(header->value, framing);
    }
    if (strcasecmp(header->name, "Transfer-Encoding") == 0) {
        if (framing->is_chunked || framing->is_http_1_0) {
            return 400;
        }
        if (strcasecmp(header->value, "chunked") != 0) {
            return 501;
        }
        framing->is_chunked = 1;
    } else if (strcasecmp(header->name, "Connection") == 0) {
        if (has_word(header->value, "close")) {
            framing->keeps_alive = 0;
        } else if (framing->is_http_1_0 && has_word(header->value, "keep-alive")) {
            framing->keeps_alive = 1;
        }
    } else if (strcasecmp(header->name, "Expect") == 0) {
        framing->expects_continue = strcasecmp(header->value, "100-continue") == 0;
    } else if (strcasecmp(header->name, "Host") == 0) {
        if (framing->has_host) {
            return 400;
        }
        framing->has_host = 1;
    }
    return OK;
}

static int parse_header_line(char *line, struct spore_header *header) {
    char *colon = strchr(line, ':');
    if (colon == NULL) {
        return 400;
    }
    *colon = '\0';
    char *value = colon + 1 + strspn(colon + 1, " \t");
    size_t length = strlen(value);
    while (length > 0 && (value[length - 1] == ' ' || value[length - 1] == '\t')) {
        length--;
    }
    value[length] = '\0';
    if (!is_token(line) || !is_header_value(value)) {
        return 400;
    }
    header->name = line;
    header->value = value;
    return OK;
}

/* Parses the head in place: line ends become NUL bytes. */
static int parse_head(const struct connection *connection, struct spore_request *request, struct framing *framing) {
    if (memchr(input, '\0', connection->head_end) != NULL) {
        return 400;
    }
    char *line = input;
    char *last = input + connection->head_end - 2;
    request->headers = header_table;
    for (int is_first = 1; line < last; is_first = 0) {
        char *line_end = memchr(line, '\r', (size_t)(last - line));
        if (line_end == NULL || line_end[1] != '\n') {
            return 400;
        }
        *line_end = '\0';
        int status;
        if (is_first) {
            status = parse_request_line(line, request, framing);
        } else if (request->header_count == HEADERS_MAX) {
            status = 431;
        } else {
            struct spore_header *header = &header_table[request->header_count++];
            status = parse_header_line(line, header);
            if (status == OK) {
                status = apply_header(header, framing);
            }
        }
        if (status != OK) {
            return status;
        }
        line = line_end + 2;
    }
    if (framing->is_chunked && framing->has_length) {
        return 400;
    }
    return framing->has_host || framing->is_http_1_0 ? OK : 400;
}

static int reserve_body(size_t length, size_t extra) {
    if (extra > body_bytes_max || length > body_bytes_max - extra) {
        return 413;
    }
    return reserve(&body, &body_capacity, length, extra) == 0 ? OK : 413;
}

/* Appends exactly `count` bytes from the connection to the body. */
static int read_body_bytes(struct connection *connection, size_t *length, size_t count) {
    int status = reserve_body(*length, count);
    if (status != OK) {
        return status;
    }
    size_t buffered = connection->end - connection->start;
    size_t taken = buffered < count ? buffered : count;
    memcpy(body + *length, input + connection->start, taken);
    connection->start += taken;
    *length += taken;
    count -= taken;
    /* The rest goes straight to its place, without a detour through input. */
    while (count > 0) {
        ssize_t received = read(connection->socket, body + *length, count);
        if (received < 0 && errno == EINTR) {
            continue;
        }
        if (received <= 0) {
            return CLOSED;
        }
        *length += (size_t)received;
        count -= (size_t)received;
    }
    return OK;
}

/* Reads a line of the chunked framing and ends it with NUL in place; it is valid until the next read. */
static int read_chunk_line(struct connection *connection, char **line) {
    for (;;) {
        char *start = input + connection->start;
        size_t available = connection->end - connection->start;
        char *newline = memchr(start, '\n', available);
        if (newline != NULL) {
            if (newline == start || newline[-1] != '\r') {
                return 400;
            }
            newline[-1] = '\0';
            *line = start;
            connection->start += (size_t)(newline - start) + 1;
            return OK;
        }
        if (available > CHUNK_LINE_BYTES_MAX) {
            return 400;
        }
        if (receive_body(connection) != OK) {
            return CLOSED;
        }
    }
}

static int parse_chunk_size(const char *line, size_t *size) {
    const char *c = line;
    *size = 0;
    for (; hex_digit(*c) >= 0; c++) {
        if (c - line >= 15) {
            return 413;
        }
        *size = *size * 16 + (size_t)hex_digit(*c);
    }
    /* An extension may follow; it means nothing to us. */
    return c == line || (*c != '\0' && *c != ';' && *c != ' ' && *c != '\t') ? 400 : OK;
}

static int read_chunked_body(struct connection *connection, size_t *length) {
    char *line;
    for (;;) {
        size_t size;
        int status = read_chunk_line(connection, &line);
        if (status == OK) {
            status = parse_chunk_size(line, &size);
        }
        if (status != OK) {
            return status;
        }
        if (size == 0) {
            break;
        }
        status = read_body_bytes(connection, length, size);
        if (status == OK) {
            status = read_chunk_line(connection, &line);
        }
        if (status != OK) {
            return status;
        }
        if (*line != '\0') {
            return 400;
        }
    }
    /* Trailer fields are read and dropped; their number is bounded like that of header fields. */
    for (int i = 0; i <= HEADERS_MAX; i++) {
        int status = read_chunk_line(connection, &line);
        if (status != OK || *line == '\0') {
            return status;
        }
    }
    return 431;
}

/* ---- Writing --------------------------------------------------------------------------------------------------- */

static int write_all(int socket, struct iovec *parts, int count) {
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
    return write_all(socket, parts, count);
}

/* Answers a request that the server itself turns down, then closes. */
static void refuse(struct connection *connection, int status) {
    struct spore_response response = SPORE_RESPONSE_INIT;
    struct framing framing = {.keeps_alive = 0};
    response.status = status;
    append_header(&response, "Content-Type", "text/plain");
    switch (status) {
    case 413:
        spore_response_printf(&response, "the request body is longer than %zu bytes\n", body_bytes_max);
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
    for (size_t drained = 0; drained < body_bytes_max;) {
        ssize_t count = read(connection->socket, input, sizeof input);
        if (count <= 0) {
            return;
        }
        drained += (size_t)count;
    }
}

/* ---- The loop -------------------------------------------------------------------------------------------------- */

/* Runs the handler and writes its answer. */
static int answer(const struct connection *connection, const struct spore_request *request, const struct framing *framing) {
    struct spore_response response = SPORE_RESPONSE_INIT;
    int result = handle(request, &response);
    if (result != 0 || response.has_failed || response.status < 200 || response.status > 599) {
        if (response.has_failed) {
            fprintf(stderr, "spore: a response header was not allowed, or memory ran out; answering 500\n");
        } else if (result == 0) {
            fprintf(stderr, "spore: %d is no HTTP status of an answer; answering 500\n", response.status);
        }
        spore_response_free(&response);
        response.status = 500;
        append_header(&response, "Content-Type", "text/plain");
        spore_response_printf(&response, "the function failed\n");
    }
    /* What the handler printed belongs to the log now, not when the buffer happens to be full. */
    fflush(stdout);
    int outcome = write_response(connection->socket, &response, strcmp(request->method, "HEAD") == 0, framing);
    spore_response_free(&response);
    return outcome;
}

static int read_body(struct connection *connection, const struct framing *framing, size_t *length) {
    if (framing->has_length && framing->length > body_bytes_max) {
        return 413;
    }
    int has_body = framing->is_chunked || framing->length > 0;
    if (framing->expects_continue && has_body && !framing->is_http_1_0 && connection->start == connection->end) {
        static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
        struct iovec part = {(void *)go_on, sizeof go_on - 1};
        if (write_all(connection->socket, &part, 1) != OK) {
            return CLOSED;
        }
    }
    if (framing->is_chunked) {
        return read_chunked_body(connection, length);
    }
    return framing->length > 0 ? read_body_bytes(connection, length, framing->length) : OK;
}

/* Reads and answers one request. Returns whether the connection stays open. */
static int serve_request(struct connection *connection) {
    struct spore_request request = {.method = "", .path = "", .query = "", .body = ""};
    struct framing framing = {.is_chunked = 0};
    size_t body_length = 0;
    int status = receive_head(connection);
    if (status == OK) {
        status = parse_head(connection, &request, &framing);
    }
    if (status == OK) {
        status = read_body(connection, &framing, &body_length);
    }
    if (status == CLOSED) {
        return 0;
    }
    if (status != OK) {
        refuse(connection, status);
        return 0;
    }
    if (body_length > 0) {
        body[body_length] = '\0';
        request.body = body;
        request.body_length = body_length;
    }
    int outcome = answer(connection, &request, &framing);
    if (body_capacity > BODY_BYTES_KEPT) {
        free(body);
        body = NULL;
        body_capacity = 0;
    }
    /* The next request, if it was sent ahead, moves to the front. */
    size_t pipelined = connection->end - connection->start;
    memmove(input, input + connection->start, pipelined);
    connection->end = pipelined;
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
    body_bytes_max = number_from_environment("SPORE_BODY_BYTES_MAX", BODY_BYTES_MAX_DEFAULT, SIZE_MAX / 8);
    const char *address = getenv("SPORE_ADDRESS");
    size_t port = number_from_environment("PORT", 8080, UINT16_MAX);
    serve_forever(listen_on(address != NULL && *address != '\0' ? address : "0.0.0.0", (uint16_t)port));
}
