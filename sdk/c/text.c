/* Spore SDK for C: what handlers call to look at requests and to fill responses. */
#define _POSIX_C_SOURCE 200809L
#include "internal.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

const char *spore_request_header(const struct spore_request *request, const char *name) {
    for (size_t i = 0; i < request->header_count; i++) {
        if (strcasecmp(request->headers[i].name, name) == 0) {
            return request->headers[i].value;
        }
    }
    return NULL;
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

int spore_reserve(char **data, size_t *capacity, size_t length, size_t extra) {
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
    if (spore_reserve(&response->body, &response->body_capacity, response->body_length, length) != 0) {
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
        if (spore_reserve(&response->body, &response->body_capacity, response->body_length, (size_t)length) != 0) {
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

int spore_is_token(const char *text) {
    const char *c = text;
    while (is_token_byte(*c)) {
        c++;
    }
    return *c == '\0' && c != text;
}

int spore_is_header_value(const char *text) {
    while (*text != '\0' && !is_control(*text)) {
        text++;
    }
    return *text == '\0';
}

int spore_append_header(struct spore_response *response, const char *name, const char *value) {
    size_t length = strlen(name) + strlen(value) + 4;
    if (spore_reserve(&response->headers, &response->headers_capacity, response->headers_length, length) != 0) {
        return response_failed(response);
    }
    snprintf(response->headers + response->headers_length, length + 1, "%s: %s\r\n", name, value);
    response->headers_length += length;
    return 0;
}

int spore_response_header(struct spore_response *response, const char *name, const char *value) {
    if (!spore_is_token(name) || !spore_is_header_value(value) || strcasecmp(name, "Connection") == 0 ||
        strcasecmp(name, "Content-Length") == 0 || strcasecmp(name, "Transfer-Encoding") == 0) {
        return response_failed(response);
    }
    return spore_append_header(response, name, value);
}

void spore_response_free(struct spore_response *response) {
    free(response->body);
    free(response->headers);
    *response = (struct spore_response)SPORE_RESPONSE_INIT;
}
