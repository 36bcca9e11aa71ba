#include <spore.h>

#include <sys/random.h>

/* Answers with a number that this instance has drawn for itself when it was first asked, and how often it was asked. */
int handle(const struct spore_request *request, struct spore_response *response) {
    static unsigned long long identity;
    static unsigned asked;

    (void)request;
    if (asked++ == 0 && getrandom(&identity, sizeof identity, 0) != sizeof identity) {
        return -1;
    }
    return spore_response_printf(response, "%016llx %u\n", identity, asked);
}
