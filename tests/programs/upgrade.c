/*
 * A server of one connection at a time that switches protocols and speaks of trailers, for what a gateway has to pass on.
 *
 *   musl-gcc -static -O2 -Wall -Wextra -o upgrade upgrade.c && PORT=8080 ./upgrade
 *
 *   Upgrade: websocket   101, then each text or binary frame comes back; close and ping are answered
 *   Upgrade: echo        101, then each byte comes back until the client ends its side; then "bye" and the end
 *   Upgrade: greeting    101 with the first bytes of the new protocol in the same write, then the end
 *   Upgrade: refused     426
 *   Upgrade: never       no answer
 *   /unasked             101 although nobody has asked
 *   /trailers            the trailers of the request as lines, and as trailers of the answer; its te header as x-te
 *   anything else        the request's upgrade and connection headers
 */
#define _GNU_SOURCE
#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

static char head[16384], body[65536];
static int peer;

/* ---- bytes ---- */

static bool take(void *bytes, size_t length)
{
	for (size_t at = 0; at < length;) {
		ssize_t count = read(peer, (char *)bytes + at, length - at);
		if (count <= 0)
			return false;
		at += count;
	}
	return true;
}

static void put(const void *bytes, size_t length)
{
	for (size_t at = 0; at < length;) {
		ssize_t count = write(peer, (const char *)bytes + at, length - at);
		if (count <= 0)
			return;
		at += count;
	}
}

static void say(const char *text)
{
	put(text, strlen(text));
}

/* Reads up to and with an end; false at the end of the connection. */
static bool take_until(char *into, size_t size, const char *end)
{
	size_t length = 0;
	while (length + 1 < size && take(into + length, 1)) {
		into[++length] = 0;
		if (length >= strlen(end) && !strcmp(into + length - strlen(end), end))
			return true;
	}
	return false;
}

static const char *header(const char *name)
{
	static char value[8][256];
	static int next;
	char *found = value[next++ % 8];
	*found = 0;
	for (char *line = strstr(head, "\r\n"); line && line[2]; line = strstr(line + 2, "\r\n")) {
		size_t length = strlen(name);
		if (!strncasecmp(line + 2, name, length) && line[2 + length] == ':') {
			sscanf(line + 3 + length, " %255[^\r]", found);
			return found;
		}
	}
	return found;
}

/* ---- SHA-1 (FIPS 180-4) and base64 (RFC 4648), which the answer to a WebSocket is made with ---- */

static uint32_t rotate(uint32_t word, int bits)
{
	return word << bits | word >> (32 - bits);
}

static void sha1(const char *text, uint8_t digest[20])
{
	uint32_t h[5] = { 0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0 };
	size_t length = strlen(text), blocks = (length + 9 + 63) / 64;
	for (size_t block = 0; block < blocks; block++) {
		uint32_t w[80];
		for (size_t i = 0; i < 64; i++) {
			size_t at = block * 64 + i;
			uint8_t byte = at < length ? text[at] : at == length ? 0x80 : 0;
			if (at >= blocks * 64 - 8)
				byte = (uint64_t)length * 8 >> (blocks * 64 - 1 - at) * 8;
			w[i / 4] = i % 4 ? w[i / 4] << 8 | byte : byte;
		}
		for (int i = 16; i < 80; i++)
			w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
		uint32_t a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
		for (int i = 0; i < 80; i++) {
			uint32_t f = i < 20 ? (b & c) | (~b & d) : i < 40 ? b ^ c ^ d
				   : i < 60 ? (b & c) | (b & d) | (c & d) : b ^ c ^ d;
			uint32_t k = i < 20 ? 0x5a827999 : i < 40 ? 0x6ed9eba1 : i < 60 ? 0x8f1bbcdc : 0xca62c1d6;
			uint32_t sum = rotate(a, 5) + f + e + k + w[i];
			e = d, d = c, c = rotate(b, 30), b = a, a = sum;
		}
		h[0] += a, h[1] += b, h[2] += c, h[3] += d, h[4] += e;
	}
	for (int i = 0; i < 20; i++)
		digest[i] = h[i / 4] >> (24 - i % 4 * 8);
}

static void base64(const uint8_t *bytes, size_t length, char *text)
{
	const char *letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	for (size_t i = 0; i < length; i += 3) {
		uint32_t three = bytes[i] << 16 | (i + 1 < length ? bytes[i + 1] << 8 : 0) | (i + 2 < length ? bytes[i + 2] : 0);
		*text++ = letters[three >> 18];
		*text++ = letters[three >> 12 & 63];
		*text++ = i + 1 < length ? letters[three >> 6 & 63] : '=';
		*text++ = i + 2 < length ? letters[three & 63] : '=';
	}
	*text = 0;
}

/* ---- protocols ---- */

static void websocket(void)
{
	char text[512], accept[64];
	uint8_t digest[20];
	snprintf(text, sizeof text, "%s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", header("sec-websocket-key"));
	sha1(text, digest);
	base64(digest, sizeof digest, accept);
	snprintf(text, sizeof text,
		 "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
		 "Sec-WebSocket-Accept: %s\r\n\r\n", accept);
	say(text);
	uint8_t start[2], mask[4], more[8];
	while (take(start, 2)) {
		uint64_t length = start[1] & 127;
		size_t extended = length == 126 ? 2 : length == 127 ? 8 : 0;
		if (!take(more, extended))
			return;
		for (size_t i = 0, value = 0; i < extended; i++)
			length = value = value << 8 | more[i];
		if (!(start[1] & 128) || length > sizeof body || !take(mask, 4) || !take(body, length))
			return;
		for (size_t i = 0; i < length; i++)
			body[i] ^= mask[i % 4];
		uint8_t answer[4] = { 128 | ((start[0] & 15) == 9 ? 10 : (start[0] & 15)), length, length >> 8, length };
		if (length > 125)
			answer[1] = 126;
		put(answer, length > 125 ? 4 : 2);
		put(body, length);
		if ((start[0] & 15) == 8)
			return;
	}
}

static void echo(void)
{
	say("HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n");
	for (ssize_t count; (count = read(peer, body, sizeof body)) > 0;)
		put(body, count);
	say("bye");
}

static void trailers(void)
{
	char line[1024], answer[12288], names[1024] = "", fields[3072] = "", text[1040];
	while (take_until(line, sizeof line, "\r\n")) {
		size_t length = strtoul(line, NULL, 16);
		if (!length)
			break;
		if (length + 2 > sizeof body || !take(body, length + 2))
			return;
	}
	while (take_until(line, sizeof line, "\r\n") && strcmp(line, "\r\n")) {
		char *colon = strchr(line, ':');
		snprintf(text, sizeof text, "%.*s, ", colon ? (int)(colon - line) : 0, line);
		if (strlen(fields) + strlen(line) >= sizeof fields || strlen(names) + strlen(text) >= sizeof names)
			return;
		strcat(fields, line);
		strcat(names, text);
	}
	/* The fields are in the answer twice: as its body and as its trailers. */
	snprintf(answer, sizeof answer,
		 "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: %sx-last\r\nX-Te: %s\r\n\r\n"
		 "%zx\r\n%s\n\r\n0\r\n%sx-last: yes\r\n\r\n",
		 names, header("te"), strlen(fields) + 1, fields, fields);
	say(answer);
}

static void serve(void)
{
	while (take_until(head, sizeof head, "\r\n\r\n")) {
		const char *protocol = header("upgrade");
		char text[1024], answer[1200];
		if (!strcmp(protocol, "websocket"))
			return websocket();
		if (!strcmp(protocol, "echo"))
			return echo();
		if (!strcmp(protocol, "greeting"))
			return say("HTTP/1.1 101 Switching Protocols\r\nUpgrade: greeting\r\nConnection: Upgrade\r\n\r\nhello");
		if (!strcmp(protocol, "never")) {
			pause();
		} else if (!strcmp(protocol, "refused")) {
			say("HTTP/1.1 426 Upgrade Required\r\nUpgrade: other\r\nContent-Length: 3\r\n\r\nno\n");
		} else if (strstr(head, " /unasked ")) {
			return say("HTTP/1.1 101 Switching Protocols\r\nUpgrade: other\r\nConnection: Upgrade\r\n\r\n");
		} else if (strstr(head, " /trailers ")) {
			trailers();
		} else {
			snprintf(text, sizeof text, "upgrade: %s\nconnection: %s\n", protocol, header("connection"));
			snprintf(answer, sizeof answer, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n%s", strlen(text), text);
			say(answer);
		}
	}
}

int main(void)
{
	const char *port = getenv("PORT");
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port ? atoi(port) : 8080) };
	int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
	signal(SIGPIPE, SIG_IGN);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 16))
		return 1;
	while ((peer = accept(listener, NULL, NULL)) >= 0) {
		serve();
		close(peer);
	}
	return 1;
}
