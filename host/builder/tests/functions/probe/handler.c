/* Shows what the SDK understood of a request, for the tests in ../../sdk_c.rs. */
#include <spore.h>

#include <stdlib.h>
#include <string.h>

static int describe(const struct spore_request *request, struct spore_response *response) {
    spore_response_printf(response, "method=%s\npath=%s\nquery=%s\nheaders=%zu\nbody=%zu\n", request->method,
                          request->path, request->query, request->header_count, request->body_length);
    char value[16];
    long length = spore_request_query(request, "key", value, sizeof value);
    spore_response_printf(response, "key=%ld:%s\n", length, length < 0 ? "" : value);
    const char *header = spore_request_header(request, "x-test");
    return spore_response_printf(response, "x-test=%s\n", header != NULL ? header : "(none)");
}

int handle(const struct spore_request *request, struct spore_response *response) {
    static int calls;
    if (strcmp(request->path, "/echo") == 0) {
        spore_response_header(response, "Content-Type", "application/octet-stream");
        return spore_response_append(response, request->body, request->body_length);
    }
    if (strcmp(request->path, "/calls") == 0) {
        return spore_response_printf(response, "%d", ++calls);
    }
    if (strcmp(request->path, "/status") == 0) {
        response->status = atoi(request->query);
        return spore_response_printf(response, "status");
    }
    if (strcmp(request->path, "/fail") == 0) {
        spore_response_printf(response, "must not be seen");
        return -1;
    }
    if (strcmp(request->path, "/split") == 0) {
        return spore_response_header(response, "X-Split", "a\r\nX-Injected: b") == -1 ? 0 : -1;
    }
    return describe(request, response);
}
