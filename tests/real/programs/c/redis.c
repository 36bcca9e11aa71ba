/* Starts redis-server beside itself, talks to it over loopback, and prints what it answered.
 *
 * Redis speaks no HTTP, so this stands for a function's sidecar: usage is redis PATH-OF-SERVER PORT. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { CONNECTIONS = 8, OPERATIONS = 1000, ANSWER_MAX = 1 << 16 };

static void fail(const char *what) {
  fprintf(stderr, "%s: %s\n", what, strerror(errno));
  exit(1);
}

static int try_connect(int port) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int connection = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
  if (connect(connection, (struct sockaddr *)&address, sizeof address)) {
    close(connection);
    return -1;
  }
  setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return connection;
}

/* Waits until the server listens, for at most 20 seconds. */
static int first_connection(int port, pid_t server) {
  for (int i = 0; i < 2000; i++) {
    int connection = try_connect(port), status;
    if (connection >= 0) return connection;
    if (waitpid(server, &status, WNOHANG) == server) {
      fprintf(stderr, "the server ended: %x\n", status);
      exit(1);
    }
    struct timespec pause = {.tv_nsec = 10000000};
    nanosleep(&pause, NULL);
  }
  fail("no connection");
  return -1;
}

static void send_all(int connection, const char *data, size_t length) {
  while (length > 0) {
    ssize_t sent = send(connection, data, length, MSG_NOSIGNAL);
    if (sent < 0) fail("send");
    data += sent, length -= sent;
  }
}

/* Where the answer that begins at `at` ends, or NULL if it is not all there. */
static const char *end_of(const char *at) {
  const char *line = strstr(at, "\r\n");
  if (!line) return NULL;
  long count = atol(at + 1);
  const char *end = line + 2;
  if (*at == '$' && count >= 0) return strlen(end) >= (size_t)count + 2 ? end + count + 2 : NULL;
  if (*at == '*')
    for (; count > 0 && end; count--) end = *end ? end_of(end) : NULL;
  return end;
}

/* Sends one inline command and receives its answer whole. */
static void ask(int connection, char *answer, const char *format, ...) {
  char command[1024];
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(command, sizeof command - 2, format, arguments);
  va_end(arguments);
  strcpy(command + length, "\r\n");
  send_all(connection, command, length + 2);
  size_t received = 0;
  answer[0] = 0;
  while (received == 0 || !end_of(answer)) {
    ssize_t got = recv(connection, answer + received, ANSWER_MAX - 1 - received, 0);
    if (got <= 0) fail("recv");
    answer[received += got] = 0;
  }
}

static void show(int connection, const char *command) {
  static char answer[ANSWER_MAX];
  ask(connection, answer, "%s", command);
  printf("%s:", command);
  for (char *line = strtok(answer, "\r\n"); line; line = strtok(NULL, "\r\n")) printf(" %s", line);
  printf("\n");
}

/* All connections at once: a thousand operations each, one on its way at a time. */
static void load(int port) {
  static char answers[CONNECTIONS][256];
  struct pollfd polls[CONNECTIONS];
  int done[CONNECTIONS] = {0}, finished = 0, errors = 0;
  for (int i = 0; i < CONNECTIONS; i++) {
    polls[i] = (struct pollfd){.fd = try_connect(port), .events = POLLIN};
    if (polls[i].fd < 0) fail("connect");
    send_all(polls[i].fd, "INCR shared\r\n", 13);
  }
  while (finished < CONNECTIONS) {
    if (poll(polls, CONNECTIONS, 20000) <= 0) fail("poll");
    for (int i = 0; i < CONNECTIONS; i++) {
      if (!polls[i].revents) continue;
      ssize_t got = recv(polls[i].fd, answers[i], sizeof answers[i] - 1, 0);
      if (got <= 0) fail("recv");
      errors += answers[i][0] == '-';
      char command[64];
      if (++done[i] == OPERATIONS) {
        finished++;
        close(polls[i].fd);
        polls[i].fd = -1;
        continue;
      }
      const char *kinds[] = {"INCR shared", "SET key:%d value", "GET key:%d", "LPUSH list %d", "HSET hash field:%d 1"};
      int length = snprintf(command, sizeof command - 2, kinds[done[i] % 5], done[i]);
      memcpy(command + length, "\r\n", 2);
      send_all(polls[i].fd, command, length + 2);
    }
  }
  printf("%d operations, %d errors\n", CONNECTIONS * OPERATIONS, errors);
}

int main(int count, char **arguments) {
  if (count != 3) return 2;
  setvbuf(stdout, NULL, _IOLBF, 0);
  char *server[] = {arguments[1], "--port", arguments[2], "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
                    "--daemonize", "no", "--loglevel", "warning", "--logfile", "/dev/null", "--dir", "/tmp", NULL};
  char *environment[] = {"LANG=C", NULL};
  int port = atoi(arguments[2]);
  pid_t pid;
  errno = posix_spawn(&pid, arguments[1], NULL, NULL, server, environment);
  if (errno) fail("posix_spawn");
  int connection = first_connection(port, pid);
  const char *commands[] = {"PING", "SET greeting hello", "GET greeting", "APPEND greeting !", "STRLEN greeting",
                            "GET none", "INCR counter", "INCRBY counter 41", "LPUSH letters a b c", "LRANGE letters 0 -1",
                            "HSET hash one 1 two 2", "HGETALL hash", "ZADD scores 3 c 1 a 2 b", "ZRANGE scores 0 -1 WITHSCORES",
                            "SADD set x", "SISMEMBER set x", "EXPIRE greeting 100", "TTL greeting", "PEXPIRE counter 1",
                            "EXISTS counter",
                            "SETRANGE greeting 1 a", "EVAL \"return redis.call('get', KEYS[1]) .. ARGV[1]\" 1 greeting ?",
                            "BITCOUNT greeting", "NOSUCHCOMMAND", "MULTI", "INCR inside", "EXEC", "DBSIZE"};
  for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
    show(connection, commands[i]);
    struct timespec pause = {.tv_nsec = 20000000};
    if (strstr(commands[i], "PEXPIRE")) nanosleep(&pause, NULL);
  }
  load(port);
  show(connection, "GET shared");
  show(connection, "LLEN list");
  show(connection, "HLEN hash");
  send_all(connection, "SHUTDOWN NOSAVE\r\n", 17);
  int status;
  if (waitpid(pid, &status, 0) != pid) fail("waitpid");
  printf("the server ended with %d\n", WIFEXITED(status) ? WEXITSTATUS(status) : 256 + WTERMSIG(status));
  return 0;
}
