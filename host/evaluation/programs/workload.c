/* The workloads of `spore bench` in C: the path says which, the query's n how much.
 *
 * Each answers "elapsed_ns=TIME check=RESULT", timed inside by CLOCK_MONOTONIC; the result is there so that no compiler
 * leaves the work out, and is the same in every language. Those of other languages are beside this file.
 *
 *     /hello     nothing at all                 /sha256    SHA-256 of n bytes
 *     /primes    counts primes below n          /read      reads a file of n KiB, which is written at the first call
 *     /matrix    multiplies two n x n matrices  /unzip     inflates the body (raw deflate) n times
 *     /fft       transforms 2^n complex points  /sleep     sleeps for n milliseconds
 *     /json      writes and reads n objects     /spin      n rounds of a fixed loop
 *     /echo      the body                       /next      the body and one more byte
 */
#include <spore.h>

#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint64_t primes(uint64_t n) {
    unsigned char *composite = calloc(n + 1, 1);
    uint64_t count = 0;
    if (composite == NULL) {
        return 0;
    }
    for (uint64_t i = 2; i < n; i++) {
        if (composite[i]) {
            continue;
        }
        count++;
        for (uint64_t j = i * i; j < n; j += i) {
            composite[j] = 1;
        }
    }
    free(composite);
    return count;
}

static uint64_t matrix(uint64_t n) {
    double *a = malloc(3 * n * n * sizeof *a), *b = a + n * n, *c = b + n * n, sum = 0;
    if (a == NULL) {
        return 0;
    }
    for (uint64_t i = 0; i < n * n; i++) {
        a[i] = (double)(i % 7);
        b[i] = (double)(i % 5);
        c[i] = 0;
    }
    for (uint64_t i = 0; i < n; i++) {
        for (uint64_t k = 0; k < n; k++) {
            double factor = a[i * n + k];
            for (uint64_t j = 0; j < n; j++) {
                c[i * n + j] += factor * b[k * n + j];
            }
        }
    }
    for (uint64_t i = 0; i < n * n; i++) {
        sum += c[i];
    }
    free(a);
    return (uint64_t)sum;
}

/* Transforms (i mod 8) in place, radix 2; the check is the rounded magnitude of the second half's first point. */
static uint64_t fft(uint64_t bits) {
    uint64_t n = (uint64_t)1 << bits;
    double *re = malloc(2 * n * sizeof *re), *im = re + n, result;
    if (re == NULL) {
        return 0;
    }
    for (uint64_t i = 0, j = 0; i < n; i++) {
        re[j] = (double)(i % 8);
        im[j] = 0;
        uint64_t bit = n >> 1;
        while (bit != 0 && (j & bit) != 0) {
            j ^= bit;
            bit >>= 1;
        }
        j |= bit;
    }
    for (uint64_t length = 2; length <= n; length *= 2) {
        double angle = -2 * 3.14159265358979323846 / (double)length;
        for (uint64_t k = 0; k < length / 2; k++) {
            double wr = cos(angle * (double)k), wi = sin(angle * (double)k);
            for (uint64_t i = k; i < n; i += length) {
                uint64_t o = i + length / 2;
                double xr = re[o] * wr - im[o] * wi, xi = re[o] * wi + im[o] * wr;
                re[o] = re[i] - xr;
                im[o] = im[i] - xi;
                re[i] += xr;
                im[i] += xi;
            }
        }
    }
    result = sqrt(re[n / 2] * re[n / 2] + im[n / 2] * im[n / 2]);
    free(re);
    return (uint64_t)(result + 0.5);
}

/* Writes [{"id":0,"name":"item 0","even":true}, ...] and adds the numbers up again that it reads in it. */
static uint64_t json(uint64_t n) {
    char *text = malloc(n * 64 + 3), *end = text;
    uint64_t sum = 0;
    if (text == NULL) {
        return 0;
    }
    *end++ = '[';
    for (uint64_t i = 0; i < n; i++) {
        end += sprintf(end, "%s{\"id\":%" PRIu64 ",\"name\":\"item %" PRIu64 "\",\"even\":%s}", i ? "," : "", i, i,
                       i % 2 ? "false" : "true");
    }
    *end++ = ']';
    *end = 0;
    for (const char *at = text; *at; at++) {
        if (*at == '"') { /* a string: to its end */
            const char *name = at + 1;
            for (at++; *at != '"'; at++) {
                at += *at == '\\';
            }
            if (at - name == 2 && memcmp(name, "id", 2) == 0 && at[1] == ':') {
                sum += strtoull(at + 2, NULL, 10);
            }
        }
    }
    free(text);
    return sum;
}

#define ROTATE(x, n) ((x) >> (n) | (x) << (32 - (n)))

static uint32_t sha256_table[64];

/* The fractional parts of cube roots of the first primes (FIPS 180-4), computed rather than listed. */
static void sha256_prepare(uint32_t *state) {
    int found = 0;
    for (uint32_t candidate = 2; found < 64; candidate++) {
        int is_prime = 1;
        for (uint32_t divisor = 2; divisor * divisor <= candidate; divisor++) {
            is_prime &= candidate % divisor != 0;
        }
        if (is_prime) {
            double cube = cbrt(candidate), square = sqrt(candidate);
            sha256_table[found] = (uint32_t)((cube - floor(cube)) * 4294967296.0);
            if (found < 8) {
                state[found] = (uint32_t)((square - floor(square)) * 4294967296.0);
            }
            found++;
        }
    }
}

static void sha256_block(uint32_t *state, const unsigned char *block) {
    uint32_t w[64], a = state[0], b = state[1], c = state[2], d = state[3];
    uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
    for (int i = 0; i < 16; i++) {
        w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 | (uint32_t)block[4 * i + 2] << 8 |
               block[4 * i + 3];
    }
    for (int i = 16; i < 64; i++) {
        uint32_t low = ROTATE(w[i - 15], 7) ^ ROTATE(w[i - 15], 18) ^ w[i - 15] >> 3;
        uint32_t high = ROTATE(w[i - 2], 17) ^ ROTATE(w[i - 2], 19) ^ w[i - 2] >> 10;
        w[i] = w[i - 16] + low + w[i - 7] + high;
    }
    for (int i = 0; i < 64; i++) {
        uint32_t one = h + (ROTATE(e, 6) ^ ROTATE(e, 11) ^ ROTATE(e, 25)) + ((e & f) ^ (~e & g)) + sha256_table[i] + w[i];
        uint32_t two = (ROTATE(a, 2) ^ ROTATE(a, 13) ^ ROTATE(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
        h = g, g = f, f = e, e = d + one, d = c, c = b, b = a, a = one + two;
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d;
    state[4] += e, state[5] += f, state[6] += g, state[7] += h;
}

/* The first 4 bytes of the digest of n zero bytes. */
static uint64_t sha256(uint64_t n) {
    static const unsigned char zeros[64];
    unsigned char last[128] = {0};
    uint32_t state[8];
    uint64_t whole = n / 64, left = n % 64, blocks = left < 56 ? 1 : 2;
    sha256_prepare(state);
    for (uint64_t i = 0; i < whole; i++) {
        sha256_block(state, zeros);
    }
    last[left] = 0x80;
    for (int i = 0; i < 8; i++) {
        last[blocks * 64 - 1 - (uint64_t)i] = (unsigned char)(n * 8 >> (8 * i));
    }
    for (uint64_t i = 0; i < blocks; i++) {
        sha256_block(state, last + 64 * i);
    }
    return state[0];
}

/* Bits of a deflate stream (RFC 1951), from the lowest of each byte; what is missing at its end reads as zeros. */
struct bits {
    const unsigned char *data;
    size_t length, position; /* in bits */
};

static unsigned take(struct bits *bits, unsigned count) {
    unsigned value = 0;
    for (unsigned i = 0; i < count; i++, bits->position++) {
        size_t byte = bits->position / 8;
        if (byte < bits->length) {
            value |= (unsigned)(bits->data[byte] >> bits->position % 8 & 1) << i;
        }
    }
    return value;
}

struct code {
    uint16_t count[16], symbols[288];
};

static void make_code(struct code *code, const unsigned char *lengths, int n) {
    uint16_t start[16] = {0};
    memset(code, 0, sizeof *code);
    for (int i = 0; i < n; i++) {
        code->count[lengths[i]]++;
    }
    code->count[0] = 0;
    for (int i = 1; i < 16; i++) {
        start[i] = start[i - 1] + code->count[i - 1];
    }
    for (int i = 0; i < n; i++) {
        if (lengths[i] != 0) {
            code->symbols[start[lengths[i]]++] = (uint16_t)i;
        }
    }
}

static int symbol(struct bits *bits, const struct code *code) {
    int value = 0, first = 0, index = 0;
    for (int length = 1; length < 16; length++) {
        value |= (int)take(bits, 1);
        int count = code->count[length];
        if (value - count < first) {
            return code->symbols[index + value - first];
        }
        index += count;
        first = (first + count) << 1;
        value <<= 1;
    }
    return -1;
}

/* Reads both codes of a dynamic block; 0 if they are well-formed. */
static int dynamic_codes(struct bits *bits, struct code *literals, struct code *distances) {
    static const unsigned char order[19] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
    unsigned char lengths[320] = {0};
    int literal_count = (int)take(bits, 5) + 257, distance_count = (int)take(bits, 5) + 1;
    int code_count = (int)take(bits, 4) + 4, at = 0;
    struct code code;
    for (int i = 0; i < code_count; i++) {
        lengths[order[i]] = (unsigned char)take(bits, 3);
    }
    make_code(&code, lengths, 19);
    memset(lengths, 0, sizeof lengths);
    while (at < literal_count + distance_count) {
        int next = symbol(bits, &code), repeat = 1;
        unsigned char length = (unsigned char)next;
        if (next < 0) {
            return -1;
        }
        if (next == 16) {
            if (at == 0) {
                return -1;
            }
            length = lengths[at - 1];
            repeat = 3 + (int)take(bits, 2);
        } else if (next > 16) {
            length = 0;
            repeat = next == 17 ? 3 + (int)take(bits, 3) : 11 + (int)take(bits, 7);
        }
        if (at + repeat > literal_count + distance_count || literal_count > 286) {
            return -1;
        }
        while (repeat-- > 0) {
            lengths[at++] = length;
        }
    }
    make_code(literals, lengths, literal_count);
    make_code(distances, lengths + literal_count, distance_count);
    return 0;
}

/* Inflates into room bytes; how many there are, or -1 if the stream is malformed or longer. */
static long inflate(const void *data, size_t length, unsigned char *out, size_t room) {
    static const uint16_t bases[29] = {3,  4,  5,  6,  7,  8,  9,  10, 11,  13,  15,  17,  19,  23, 27,
                                       31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258};
    static const uint16_t far_bases[30] = {1,   2,   3,   4,   5,   7,    9,    13,   17,   25,   33,   49,   65,    97,    129,
                                           193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577};
    struct bits bits = {data, length, 0};
    size_t size = 0;
    int is_last = 0;
    while (!is_last) {
        struct code literals, distances;
        is_last = (int)take(&bits, 1);
        unsigned kind = take(&bits, 2);
        if (kind == 0) {
            bits.position = (bits.position + 7) / 8 * 8;
            unsigned count = take(&bits, 16);
            take(&bits, 16);
            for (; count > 0 && size < room; count--) {
                out[size++] = (unsigned char)take(&bits, 8);
            }
            continue;
        }
        if (kind == 1) {
            unsigned char lengths[288];
            for (int i = 0; i < 288; i++) {
                lengths[i] = (unsigned char)(i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8);
            }
            make_code(&literals, lengths, 288);
            memset(lengths, 5, 30);
            make_code(&distances, lengths, 30);
        } else if (kind == 3 || dynamic_codes(&bits, &literals, &distances) != 0) {
            return -1;
        }
        for (;;) {
            int next = symbol(&bits, &literals);
            if (next < 0 || bits.position > 8 * length || size >= room) {
                return -1;
            }
            if (next == 256) {
                break;
            }
            if (next < 256) {
                out[size++] = (unsigned char)next;
                continue;
            }
            next -= 257;
            if (next > 28) {
                return -1;
            }
            unsigned extra = next < 8 || next == 28 ? 0 : (unsigned)next / 4 - 1;
            size_t count = bases[next] + take(&bits, extra);
            int far = symbol(&bits, &distances);
            if (far < 0 || far > 29) {
                return -1;
            }
            size_t distance = far_bases[far] + take(&bits, far < 4 ? 0 : (unsigned)far / 2 - 1);
            if (distance > size || count > room - size) {
                return -1;
            }
            for (; count > 0; count--, size++) {
                out[size] = out[size - distance];
            }
        }
    }
    return (long)size;
}

/* The sum of the bytes that come out. */
static uint64_t unzip(const struct spore_request *request, uint64_t n) {
    enum { ROOM = 4 << 20 };
    unsigned char *out = malloc(ROOM);
    uint64_t sum = 0;
    for (uint64_t i = 0; i < n && out != NULL; i++) {
        long size = inflate(request->body, request->body_length, out, ROOM);
        sum = 0;
        for (long j = 0; j < size; j++) {
            sum += out[j];
        }
    }
    free(out);
    return sum;
}

static uint64_t spin(uint64_t n) {
    uint64_t state = 88172645463325252u;
    for (uint64_t i = 0; i < n; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
    }
    return state & 0xffff;
}

enum { PIECE = 128 * 1024 };
static char piece[PIECE];

/* A file of so many KiB, written once and kept open; -1 if no file can be written here. */
static int file_of(uint64_t kib) {
    static int file = -1;
    static uint64_t size;
    char name[] = "/tmp/workload-XXXXXX";
    if (file >= 0 && size == kib) {
        return file;
    }
    if (file >= 0) {
        close(file);
    }
    file = mkstemp(name);
    if (file < 0) {
        return -1;
    }
    unlink(name);
    memset(piece, 1, sizeof piece);
    for (uint64_t left = kib * 1024; left > 0;) {
        ssize_t done = write(file, piece, left < PIECE ? left : PIECE);
        if (done <= 0) {
            close(file);
            return file = -1;
        }
        left -= (uint64_t)done;
    }
    size = kib;
    return file;
}

static uint64_t read_file(int file) {
    uint64_t sum = 0, position = 0;
    for (;;) {
        ssize_t count = pread(file, piece, sizeof piece, (off_t)position);
        if (count <= 0) {
            return sum;
        }
        position += (uint64_t)count;
        sum += (uint64_t)count * (uint64_t)piece[0];
    }
}

int handle(const struct spore_request *request, struct spore_response *response) {
    char value[24] = "";
    const char *path = request->path;
    spore_request_query(request, "n", value, sizeof value);
    uint64_t n = strtoull(value, NULL, 10), check = 0;
    int file = -1;
    if (strcmp(path, "/echo") == 0 || strcmp(path, "/next") == 0) {
        int failed = spore_response_append(response, request->body, request->body_length);
        return path[1] == 'n' ? spore_response_append(response, ".", 1) : failed;
    }
    if (n > 100000000000u) {
        n = 100000000000u;
    }
    if (strcmp(path, "/read") == 0 && (file = file_of(n)) < 0) {
        response->status = 501;
        return spore_response_printf(response, "no file can be written here\n");
    }
    uint64_t start = now_ns();
    if (strcmp(path, "/primes") == 0) {
        check = primes(n);
    } else if (strcmp(path, "/matrix") == 0) {
        check = matrix(n);
    } else if (strcmp(path, "/fft") == 0) {
        check = fft(n < 24 ? n : 24);
    } else if (strcmp(path, "/json") == 0) {
        check = json(n);
    } else if (strcmp(path, "/sha256") == 0) {
        check = sha256(n);
    } else if (strcmp(path, "/read") == 0) {
        check = read_file(file);
    } else if (strcmp(path, "/unzip") == 0) {
        check = unzip(request, n);
    } else if (strcmp(path, "/spin") == 0) {
        check = spin(n);
    } else if (strcmp(path, "/sleep") == 0) {
        struct timespec time = {(time_t)(n / 1000), (long)(n % 1000) * 1000000};
        nanosleep(&time, NULL);
        check = n;
    }
    return spore_response_printf(response, "elapsed_ns=%" PRIu64 " check=%" PRIu64 "\n", now_ns() - start, check);
}
