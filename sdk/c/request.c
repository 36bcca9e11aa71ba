/* Spore SDK for C: reading requests.
 *
 * Connections share one input buffer: a connection is left waiting for its next request only when every byte that it
 * has sent was used. The buffer holds the head of a request, which stays in place (the strings of the request point
 * into it), and behind it a window through which the body is read:
 *
 *     0          head_end        start      end             sizeof input
 *     | head      | used body     | unused   | free          |
 */
#define _POSIX_C_SOURCE 200809L
#include "internal.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
    BODY_WINDOW_BYTES = 16 * 1024,
    CHUNK_LINE_BYTES_MAX = 1024,
    /* A body buffer larger than this is not kept for the next request. */
    BODY_BYTES_KEPT = 256 * 1024,
};

size_t spore_body_bytes_max = 16 * 1024 * 1024;

static char input[HEAD_BYTES_MAX + BODY_WINDOW_BYTES];
static struct spore_header header_table[HEADERS_MAX];
static char *body;
static size_t body_capacity;

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
    if (!spore_is_token(line) || target_end == NULL || target_end == target) {
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
    if (!spore_is_token(line) || !spore_is_header_value(value)) {
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
    if (extra > spore_body_bytes_max || length > spore_body_bytes_max - extra) {
        return 413;
    }
    return spore_reserve(&body, &body_capacity, length, extra) == 0 ? OK : 413;
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

static int read_body(struct connection *connection, const struct framing *framing, size_t *length) {
    if (framing->has_length && framing->length > spore_body_bytes_max) {
        return 413;
    }
    int has_body = framing->is_chunked || framing->length > 0;
    if (framing->expects_continue && has_body && !framing->is_http_1_0 && connection->start == connection->end) {
        static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
        struct iovec part = {(void *)go_on, sizeof go_on - 1};
        if (spore_write_all(connection->socket, &part, 1) != OK) {
            return CLOSED;
        }
    }
    if (framing->is_chunked) {
        return read_chunked_body(connection, length);
    }
    return framing->length > 0 ? read_body_bytes(connection, length, framing->length) : OK;
}

int spore_read_request(struct connection *connection, struct spore_request *request, struct framing *framing) {
    size_t body_length = 0;
    int status = receive_head(connection);
    if (status == OK) {
        status = parse_head(connection, request, framing);
    }
    if (status == OK) {
        status = read_body(connection, framing, &body_length);
    }
    if (status == OK && body_length > 0) {
        body[body_length] = '\0';
        request->body = body;
        request->body_length = body_length;
    }
    return status;
}

void spore_end_request(struct connection *connection) {
    if (body_capacity > BODY_BYTES_KEPT) {
        free(body);
        body = NULL;
        body_capacity = 0;
    }
    size_t pipelined = connection->end - connection->start;
    memmove(input, input + connection->start, pipelined);
    connection->end = pipelined;
}
