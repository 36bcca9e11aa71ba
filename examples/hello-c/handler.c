#include <spore.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Greets whoever is named in the query or the body:
 *
 *     spore deploy examples/hello-c
 *     curl 'http://127.0.0.1:8080/function/hello-c?name=Ada'
 *     echo -n Ada | spore invoke hello-c
 */
int handle(const struct spore_request *request, struct spore_response *response) {
    char name[64];
    if (spore_request_query(request, "name", name, sizeof name) < 0) {
        snprintf(name, sizeof name, "%s", request->body_length > 0 ? request->body : "world");
    }
    name[strcspn(name, "\r\n")] = '\0';

    const char *greeting = getenv("GREETING");
    printf("%s %s for %s\n", request->method, request->path, name);

    spore_response_header(response, "Content-Type", "text/plain; charset=utf-8");
    return spore_response_printf(response, "%s, %s!\n", greeting != NULL ? greeting : "Hello", name);
}
