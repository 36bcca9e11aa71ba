#include <spore.h>

#include <assert.h>
#include <stdio.h>
#include <string.h>

/* Calls the handler as the server would and compares the whole answer. */
static void check(struct spore_request request, const char *expected) {
    struct spore_response response = SPORE_RESPONSE_INIT;
    assert(handle(&request, &response) == 0);
    assert(!response.has_failed);
    assert(response.status == 200);
    assert(response.body_length == strlen(expected));
    assert(memcmp(response.body, expected, response.body_length) == 0);
    spore_response_free(&response);
}

int main(void) {
    struct spore_request request = {.method = "GET", .path = "/", .query = "", .body = ""};
    check(request, "Hello, world, from a unikernel!\n");

    request.query = "name=Ada%20L.";
    check(request, "Hello, Ada L., from a unikernel!\n");

    request.body = "12345";
    request.body_length = 5;
    check(request, "Hello, Ada L., from a unikernel!\nYou sent 5 bytes.\n");

    puts("handler_test: ok");
    return 0;
}
