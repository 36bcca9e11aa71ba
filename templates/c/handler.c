#include <spore.h>

#include <stdio.h>

/* Answers one request. Everything that the SDK offers is described in build/sdk/spore.h, which `spore build` writes. */
int handle(const struct spore_request *request, struct spore_response *response) {
    char name[64];
    if (spore_request_query(request, "name", name, sizeof name) < 0) {
        snprintf(name, sizeof name, "world");
    }

    /* Standard output and error go to the function's log: spore logs. */
    printf("%s %s\n", request->method, request->path);

    spore_response_header(response, "Content-Type", "text/plain; charset=utf-8");
    spore_response_printf(response, "Hello, %s, from a unikernel!\n", name);
    if (request->body_length > 0) {
        spore_response_printf(response, "You sent %zu bytes.\n", request->body_length);
    }
    return 0;
}
