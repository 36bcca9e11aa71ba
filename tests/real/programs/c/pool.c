/* An HTTP server for the shared C library: one thread accepts, a pool of others answers.
 *
 *   /          a greeting
 *   /sum       a sum that all threads of the pool work on together
 *   /local     what each thread has in its thread-local storage
 *   /clock     whether a timed wait takes as long as it was asked to
 *   /libc      what needs the C library's data and its dynamic loader
 *   /echo      the length and a checksum of the body
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <locale.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { THREADS = 8, QUEUE = 64, REQUEST_MAX = 1 << 20, ANSWER_MAX = 4096 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t filled = PTHREAD_COND_INITIALIZER, emptied = PTHREAD_COND_INITIALIZER;
static int queue[QUEUE], queued;
static __thread unsigned served;

static void put(int connection) {
  pthread_mutex_lock(&lock);
  while (queued == QUEUE) pthread_cond_wait(&emptied, &lock);
  queue[queued++] = connection;
  pthread_cond_signal(&filled);
  pthread_mutex_unlock(&lock);
}

static int take(void) {
  pthread_mutex_lock(&lock);
  while (queued == 0) pthread_cond_wait(&filled, &lock);
  int connection = queue[0];
  memmove(queue, queue + 1, sizeof *queue * --queued);
  pthread_cond_signal(&emptied);
  pthread_mutex_unlock(&lock);
  return connection;
}

struct part {
  pthread_t thread;
  pthread_barrier_t *barrier;
  unsigned long from, sum;
};

static void *add(void *argument) {
  struct part *part = argument;
  pthread_barrier_wait(part->barrier);
  for (unsigned long i = 0; i < 100000; i++) part->sum += (part->from + i) * 2654435761u % 1009;
  pthread_barrier_wait(part->barrier);
  return part;
}

static void sum(char *answer) {
  struct part parts[THREADS] = {0};
  pthread_barrier_t barrier;
  pthread_barrier_init(&barrier, NULL, THREADS);
  for (int i = 0; i < THREADS; i++) {
    parts[i].barrier = &barrier;
    parts[i].from = i * 100000ul;
    pthread_create(&parts[i].thread, NULL, add, &parts[i]);
  }
  unsigned long total = 0;
  for (int i = 0; i < THREADS; i++) {
    void *part;
    pthread_join(parts[i].thread, &part);
    total += ((struct part *)part)->sum;
  }
  pthread_barrier_destroy(&barrier);
  snprintf(answer, ANSWER_MAX, "sum %lu by %d threads\n", total, THREADS);
}

static pthread_key_t key;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int destroyed;

static void destroy(void *value) {
  free(value);
  __atomic_add_fetch(&destroyed, 1, __ATOMIC_SEQ_CST);
}
static void make_key(void) { pthread_key_create(&key, destroy); }

static void *own(void *argument) {
  static __thread long own_value = 40;
  own_value += (long)argument;
  pthread_once(&once, make_key);
  pthread_setspecific(key, strdup("gone at the end"));
  char name[16];
  snprintf(name, sizeof name, "own-%ld", (long)argument);
  pthread_setname_np(pthread_self(), name);
  memset(name, 0, sizeof name);
  pthread_getname_np(pthread_self(), name, sizeof name);
  return (void *)(own_value * 100 + name[4] - '0');
}

static void local(char *answer) {
  destroyed = 0;
  long values = 0;
  pthread_t threads[THREADS];
  for (long i = 0; i < THREADS; i++) pthread_create(&threads[i], NULL, own, (void *)i);
  for (int i = 0; i < THREADS; i++) {
    void *value;
    pthread_join(threads[i], &value);
    values += (long)value;
  }
  snprintf(answer, ANSWER_MAX, "values %ld, destroyed %d\n", values, destroyed);
}

static void clock_check(char *answer) {
  struct timespec start, deadline, end;
  clock_gettime(CLOCK_MONOTONIC, &start);
  clock_gettime(CLOCK_REALTIME, &deadline);
  deadline.tv_nsec += 20000000;
  if (deadline.tv_nsec >= 1000000000) deadline.tv_sec++, deadline.tv_nsec -= 1000000000;
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t never = PTHREAD_COND_INITIALIZER;
  pthread_mutex_lock(&mutex);
  int result;
  do result = pthread_cond_timedwait(&never, &mutex, &deadline);
  while (result == 0);
  pthread_mutex_unlock(&mutex);
  clock_gettime(CLOCK_MONOTONIC, &end);
  long waited_ms = (end.tv_sec - start.tv_sec) * 1000 + (end.tv_nsec - start.tv_nsec) / 1000000;
  snprintf(answer, ANSWER_MAX, "%s, waited as long as asked: %s\n", strerror(result),
           waited_ms >= 19 && waited_ms < 10000 ? "yes" : "no");
}

static void libc(char *answer) {
  char error[128];
  const char *locale = setlocale(LC_ALL, "C.UTF-8");
  void *math = dlopen("libm.so.6", RTLD_NOW);
  double (*cube_root)(double) = math ? (double (*)(double))dlsym(math, "cbrt") : NULL;
  struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found = NULL;
  int resolved = getaddrinfo("localhost", "http", &hints, &found);
  char address[INET_ADDRSTRLEN] = "none";
  int port = 0;
  if (resolved == 0) {
    struct sockaddr_in *first = (struct sockaddr_in *)found->ai_addr;
    inet_ntop(AF_INET, &first->sin_addr, address, sizeof address);
    port = ntohs(first->sin_port);
    freeaddrinfo(found);
  }
  struct passwd *root = getpwnam("root");
  time_t then = 1700000000;
  struct tm local;
  char day[64];
  strftime(day, sizeof day, "%A %F %T %Z", localtime_r(&then, &local));
  snprintf(answer, ANSWER_MAX, "locale %s\ncube root %.6f\nlocalhost %s %d\nroot's home %s\n%s\n%s\n",
           locale ? locale : "none", cube_root ? cube_root(3) : 0, address, port, root ? root->pw_dir : "none", day,
           strerror_r(EPROTO, error, sizeof error));
}

static void echo(char *answer, const unsigned char *body, size_t length) {
  unsigned hash = 2166136261u;
  for (size_t i = 0; i < length; i++) hash = (hash ^ body[i]) * 16777619u;
  snprintf(answer, ANSWER_MAX, "%zu bytes, checksum %08x\n", length, hash);
}

static void send_all(int connection, const char *data, size_t length) {
  while (length > 0) {
    ssize_t sent = send(connection, data, length, MSG_NOSIGNAL);
    if (sent <= 0) return;
    data += sent, length -= sent;
  }
}

/* Answers requests until the client leaves. Pipelined requests are not served: no test sends any. */
static void serve(int connection) {
  char *request = malloc(REQUEST_MAX + 1), answer[ANSWER_MAX], head[256];
  for (size_t length = 0;;) {
    char *end = NULL;
    size_t wanted = 0;
    while (!end || length < wanted) {
      ssize_t got = recv(connection, request + length, REQUEST_MAX - length, 0);
      if (got <= 0) goto out;
      length += got;
      request[length] = 0;
      if (!end && (end = strstr(request, "\r\n\r\n"))) {
        char *field = strcasestr(request, "\r\ncontent-length:");
        wanted = end + 4 - request + (field && field < end ? strtoul(field + 17, NULL, 10) : 0);
      }
    }
    char path[64] = "";
    sscanf(request, "%*s %63s", path);
    int status = 200;
    served++;
    if (!strcmp(path, "/")) strcpy(answer, "a pool of threads\n");
    else if (!strcmp(path, "/sum")) sum(answer);
    else if (!strcmp(path, "/local")) local(answer);
    else if (!strcmp(path, "/clock")) clock_check(answer);
    else if (!strcmp(path, "/libc")) libc(answer);
    else if (!strcmp(path, "/echo")) echo(answer, (unsigned char *)end + 4, wanted - (end + 4 - request));
    else status = 404, strcpy(answer, "no such page\n");
    int head_length = snprintf(head, sizeof head,
                               "HTTP/1.1 %d %s\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n\r\n", status,
                               status == 200 ? "OK" : "Not Found", strlen(answer));
    send_all(connection, head, head_length);
    send_all(connection, answer, strlen(answer));
    length = 0;
  }
out:
  free(request);
  close(connection);
}

static void *work(void *unused) {
  (void)unused;
  for (;;) serve(take());
  return NULL;
}

int main(void) {
  const char *port = getenv("PORT");
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port ? atoi(port) : 8080)};
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 128)) {
    perror("listen");
    return 1;
  }
  for (int i = 0; i < THREADS; i++) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, work, NULL)) return 1;
    pthread_detach(thread);
  }
  for (;;) {
    int connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (connection < 0) continue;
    setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    put(connection);
  }
}
