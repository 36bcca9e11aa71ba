/* What the files of the SDK share; functions include spore.h instead. */
#ifndef SPORE_INTERNAL_H
#define SPORE_INTERNAL_H

#include "spore.h"

enum {
    HEAD_BYTES_MAX = 64 * 1024,
    HEADERS_MAX = 128,
};

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

static inline int hex_digit(char c) {
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

static inline int is_control(char c) {
    return ((unsigned char)c < ' ' && c != '\t') || c == 0x7f;
}

/* text.c: the SDK's names must not clash with those of the function, so they all start with spore_. */

/* Makes room for `extra` more bytes behind `length`, and for one NUL byte; at least doubles, so that appending stays
 * linear. Returns 0, or -1 if memory ran out. */
int spore_reserve(char **data, size_t *capacity, size_t length, size_t extra);

/* Whether text is an HTTP token, such as a method or the name of a header field. */
int spore_is_token(const char *text);

/* Whether text may be the value of a header field: no control characters but tabs. */
int spore_is_header_value(const char *text);

/* Adds a header field that is known to be allowed. */
int spore_append_header(struct spore_response *response, const char *name, const char *value);

/* request.c */

/* Longest body taken, in bytes. */
extern size_t spore_body_bytes_max;

/* Reads a whole request. Returns OK, CLOSED, or the HTTP status to refuse it with. The request is valid until
 * spore_end_request. */
int spore_read_request(struct connection *connection, struct spore_request *request, struct framing *framing);

/* Gives back what the request used, and moves what the client sent ahead to the front of the input buffer. */
void spore_end_request(struct connection *connection);

/* clones.c */

/* Before the first connection is waited for. Ends the program if before_snapshot() fails. */
void spore_prepare_snapshot(void);

/* After a connection was waited for. Ends the program if it is a clone now and after_restore() fails. */
void spore_look_for_restore(void);

/* server.c: writes all parts, changing them on the way. Returns OK or CLOSED. */
struct iovec;
int spore_write_all(int socket, struct iovec *parts, int count);

#endif
