/* Times what a program asks of its system, and answers with the time: /getpid, /clock (both with ?count=) and
 * /read?path= (the whole file once, in blocks of 128 KiB). One connection at a time, as the gateway sends them. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static long now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1000000000l + time.tv_nsec;
}

static long time_getpid(long count) {
  long start = now();
  for (long i = 0; i < count; i++) getpid();
  return now() - start;
}

static long time_clock(long count) {
  long start = now(), last = 0;
  for (long i = 0; i < count; i++) last = now();
  return last - start;
}

/* Returns -1 if the file cannot be read whole. */
static long time_read(const char *path, long *bytes) {
  static char block[128 << 10];
  long start = now();
  int file = open(path, O_RDONLY);
  ssize_t got;
  *bytes = 0;
  while (file >= 0 && (got = read(file, block, sizeof block)) > 0) *bytes += got;
  if (file < 0 || got < 0) return -1;
  close(file);
  return now() - start;
}

static void serve(int connection) {
  char request[4096], answer[512];
  for (;;) {
    size_t length = 0;
    do {
      ssize_t got = recv(connection, request + length, sizeof request - 1 - length, 0);
      if (got <= 0) return;
      request[length += got] = 0;
    } while (!strstr(request, "\r\n\r\n") && length < sizeof request - 1);
    long count = 0, bytes = 0, elapsed = -1;
    char path[256] = "", body[128];
    if (sscanf(request, "GET /getpid?count=%ld ", &count) == 1) elapsed = time_getpid(count);
    else if (sscanf(request, "GET /clock?count=%ld ", &count) == 1) elapsed = time_clock(count);
    else if (sscanf(request, "GET /read?path=%255s ", path) == 1) elapsed = time_read(path, &bytes);
    else elapsed = 0;
    snprintf(body, sizeof body, "elapsed_ns=%ld count=%ld bytes=%ld\n", elapsed, count, bytes);
    int size = snprintf(answer, sizeof answer, "HTTP/1.1 %s\r\nContent-Length: %zu\r\n\r\n%s",
                        elapsed < 0 ? "500 Failed" : "200 OK", strlen(body), body);
    if (send(connection, answer, size, MSG_NOSIGNAL) < 0) return;
  }
}

int main(void) {
  const char *port = getenv("PORT");
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port ? atoi(port) : 8080)};
  int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 128)) return 1;
  for (;;) {
    int connection = accept(listener, NULL, NULL);
    if (connection < 0) continue;
    setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    serve(connection);
    close(connection);
  }
}
