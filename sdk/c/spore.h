/* Spore SDK for C: write one function, handle(), and the SDK brings the HTTP server around it.
 *
 *     #include <spore.h>
 *
 *     int handle(const struct spore_request *request, struct spore_response *response) {
 *         return spore_response_printf(response, "You sent %zu bytes to %s\n", request->body_length, request->path);
 *     }
 *
 * One request is handled at a time. What a request or response points to is valid until handle() returns; static
 * variables keep their values between requests, yet another instance of the function has its own.
 *
 * The program listens on TCP port 8080. Environment variables change that and the limits:
 *
 *     PORT                  port to listen on                                    default 8080
 *     SPORE_ADDRESS         IPv4 address to listen on                            default 0.0.0.0 (all)
 *     SPORE_BODY_BYTES_MAX  longest request body taken; longer ones get 413      default 16777216
 */
#ifndef SPORE_H
#define SPORE_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* One header field of a request. Both strings end with a NUL byte. */
struct spore_header {
    const char *name;  /* as the client wrote it; compare without regard to case */
    const char *value; /* without surrounding white space */
};

/* A request. All pointers are set: what is missing is an empty string. */
struct spore_request {
    const char *method;                 /* "GET", "POST", ... */
    const char *path;                   /* starts with '/', still percent-encoded, without the query */
    const char *query;                  /* what follows '?', still percent-encoded; "" if there is none */
    const struct spore_header *headers; /* header_count entries, in the order of arrival */
    size_t header_count;
    const char *body;   /* body_length bytes; a NUL byte follows, so that text can be used as a string */
    size_t body_length; /* in bytes */
};

/* The answer. Set status directly; use the functions below for headers and body. */
struct spore_response {
    int status; /* 200 to 599; 200 unless handle() sets it */

    /* The rest belongs to the SDK: read it in tests, change it only through the functions. */
    char *body; /* body_length bytes; not terminated */
    size_t body_length;
    size_t body_capacity;
    char *headers; /* "Name: value\r\n" lines, headers_length bytes; not terminated */
    size_t headers_length;
    size_t headers_capacity;
    int has_failed; /* a call below failed: the client gets 500 */
};

/* A fresh response, for tests: struct spore_response response = SPORE_RESPONSE_INIT; */
#define SPORE_RESPONSE_INIT {200, NULL, 0, 0, NULL, 0, 0, 0}

/* Written by you. Returns 0 to send the response; anything else sends "500 Internal Server Error" instead. */
int handle(const struct spore_request *request, struct spore_response *response);

/* Written by you if the function needs it. Where the function is deployed with --snapshot, it is started once, up to the
 * moment at which it waits for its first request, and each instance is a clone of that moment (docs/snapshots.md). Both
 * return 0; after anything else the instance ends.
 *
 * before_snapshot() is called once, before that moment: do here what is to be done already in all clones, and close or
 * forget what they must not share.
 *
 * after_restore() is called in each clone before its first request: seed generators of random numbers here (srand), and
 * open again what each instance needs of its own. getrandom() and /dev/urandom give other numbers in each clone. */
int before_snapshot(void) __attribute__((weak));
int after_restore(void) __attribute__((weak));

/* The value of the first header field of that name, without regard to case; NULL if there is none. */
const char *spore_request_header(const struct spore_request *request, const char *name);

/* Copies the first query parameter of that name, percent-decoded and with a NUL byte, into value.
 * Returns its length in bytes, or -1 if there is none, or if it is malformed or does not fit into size bytes. */
long spore_request_query(const struct spore_request *request, const char *name, char *value, size_t size);

/* Each function below returns 0, or -1 if memory ran out or the argument is not allowed; then the client gets 500,
 * whatever handle() returns. */

/* Adds a header field. Not allowed: names that are no HTTP token, values with line breaks, and the fields that the
 * SDK writes itself (Connection, Content-Length, Transfer-Encoding). */
int spore_response_header(struct spore_response *response, const char *name, const char *value);

/* Appends length bytes to the body. */
int spore_response_append(struct spore_response *response, const void *data, size_t length);

/* Appends formatted text to the body. */
int spore_response_printf(struct spore_response *response, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Gives the memory of a response back, for tests; the server does it by itself. */
void spore_response_free(struct spore_response *response);

#ifdef __cplusplus
}
#endif

#endif
