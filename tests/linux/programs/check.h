/*
 * What the programs of the suite share: how a result is printed, a folder of one's own, running oneself again.
 *
 * Each program runs natively and in a unikernel, and what it prints must be the same. So it prints nothing that
 * differs between two runs: no addresses, identifiers, times or device numbers, but what follows from them.
 *
 *   VALUE(call)      prints the call and its result, or the name of its error
 *   OUTCOME(call)    prints the call and "ok", or the name of its error: for results that differ between runs
 *   ANSWER(call)     prints the call and "ok", or the name of the error that it returns: for pthread functions
 *   HOLDS(condition) prints the condition and "yes" or "no"
 *   MUST(call)       is the result of a call that the program cannot do without; ends the program if it fails
 */
#ifndef CHECK_H
#define CHECK_H

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Exit status of a program that could not do what it is about: the suite takes it for a failure on any system. */
#define EXIT_UNPREPARED 99

#define PAGE 4096ul

#define VALUE(call) (errno = 0, show_value(#call, (long)(call)))
#define OUTCOME(call) (errno = 0, show_outcome(#call, (long)(call)))
#define ANSWER(call) show_answer(#call, (call))
#define HOLDS(condition) show_condition(#condition, (condition))
#define MUST(call) \
	({ \
		__typeof__(call) must_result = (call); \
		must(#call, __FILE__, __LINE__, (long)must_result); \
		must_result; \
	})

static inline const char *error_name(int error)
{
#define NAME(name) \
	case name: \
		return #name
	switch (error) {
	NAME(E2BIG); NAME(EACCES); NAME(EADDRINUSE); NAME(EADDRNOTAVAIL); NAME(EAFNOSUPPORT); NAME(EAGAIN);
	NAME(EALREADY); NAME(EBADF); NAME(EBUSY); NAME(ECANCELED); NAME(ECHILD); NAME(ECONNABORTED);
	NAME(ECONNREFUSED); NAME(ECONNRESET); NAME(EDEADLK); NAME(EDESTADDRREQ); NAME(EDOM); NAME(EEXIST);
	NAME(EFAULT); NAME(EFBIG); NAME(EHOSTUNREACH); NAME(EINPROGRESS); NAME(EINTR); NAME(EINVAL); NAME(EIO);
	NAME(EISCONN); NAME(EISDIR); NAME(ELOOP); NAME(EMFILE); NAME(EMLINK); NAME(EMSGSIZE); NAME(ENAMETOOLONG);
	NAME(ENETUNREACH); NAME(ENFILE); NAME(ENODATA); NAME(ENODEV); NAME(ENOENT); NAME(ENOEXEC); NAME(ENOMEM);
	NAME(ENOPROTOOPT); NAME(ENOSPC); NAME(ENOSYS); NAME(ENOTCONN); NAME(ENOTDIR); NAME(ENOTEMPTY);
	NAME(ENOTSOCK); NAME(ENOTTY); NAME(ENXIO); NAME(EOPNOTSUPP); NAME(EOVERFLOW); NAME(EOWNERDEAD);
	NAME(ENOTRECOVERABLE); NAME(EPERM); NAME(EPIPE); NAME(EPROTONOSUPPORT); NAME(EPROTOTYPE); NAME(ERANGE);
	NAME(EROFS); NAME(ESPIPE); NAME(ESRCH); NAME(ESTALE); NAME(ETIMEDOUT); NAME(ETXTBSY); NAME(EXDEV);
	NAME(ESOCKTNOSUPPORT);
	}
#undef NAME
	return error == 0 ? "no error" : "an error without a name here";
}

static inline const char *signal_name(int number)
{
#define NAME(name) \
	case name: \
		return #name
	switch (number) {
	NAME(SIGABRT); NAME(SIGALRM); NAME(SIGBUS); NAME(SIGCHLD); NAME(SIGCONT); NAME(SIGFPE); NAME(SIGHUP);
	NAME(SIGILL); NAME(SIGINT); NAME(SIGIO); NAME(SIGKILL); NAME(SIGPIPE); NAME(SIGPROF); NAME(SIGQUIT);
	NAME(SIGSEGV); NAME(SIGSTOP); NAME(SIGSYS); NAME(SIGTERM); NAME(SIGTRAP); NAME(SIGTSTP); NAME(SIGURG);
	NAME(SIGUSR1); NAME(SIGUSR2); NAME(SIGVTALRM); NAME(SIGWINCH); NAME(SIGXCPU); NAME(SIGXFSZ);
	}
#undef NAME
	return number >= SIGRTMIN && number <= SIGRTMAX ? "a real-time signal" : "a signal without a name here";
}

static inline long show_value(const char *what, long value)
{
	if (value == -1 && errno != 0)
		printf("%s: %s\n", what, error_name(errno));
	else
		printf("%s: %ld\n", what, value);
	return value;
}

static inline long show_outcome(const char *what, long value)
{
	printf("%s: %s\n", what, value == -1 ? error_name(errno) : "ok");
	return value;
}

static inline int show_answer(const char *what, int error)
{
	printf("%s: %s\n", what, error == 0 ? "ok" : error_name(error));
	return error;
}

static inline bool show_condition(const char *what, bool holds)
{
	printf("%s: %s\n", what, holds ? "yes" : "no");
	return holds;
}

static inline long must(const char *what, const char *file, int line, long value)
{
	if (value == -1) {
		fprintf(stderr, "%s:%d: %s: %s\n", file, line, what, strerror(errno));
		fflush(stdout);
		_exit(EXIT_UNPREPARED);
	}
	return value;
}

/* Lines leave at once, so that none is lost when a signal ends the program or another program replaces it. */
__attribute__((constructor)) static void write_line_by_line(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
}

/* How a child ended, from the status that wait4 gives. */
static inline void show_status(const char *what, int status)
{
	if (WIFEXITED(status))
		printf("%s: exited with %d\n", what, WEXITSTATUS(status));
	else if (WIFSIGNALED(status))
		printf("%s: ended by %s\n", what, signal_name(WTERMSIG(status)));
	else
		printf("%s: neither exited nor ended by a signal\n", what);
}

static inline void sleep_ms(long milliseconds)
{
	struct timespec time = { milliseconds / 1000, milliseconds % 1000 * 1000000 };
	while (nanosleep(&time, &time) == -1 && errno == EINTR)
		;
}

/* Milliseconds of the monotonic clock. */
static inline long now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static inline void *map_anonymous(size_t length)
{
	return MUST(mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
}

static inline int remove_entry(const char *path, const struct stat *found, int type, struct FTW *where)
{
	(void)found, (void)type, (void)where;
	remove(path);
	return 0;
}

static char own_folder[64];
static pid_t own_folder_maker;

static inline void remove_own_folder(void)
{
	if (getpid() == own_folder_maker && chdir("/") == 0)
		nftw(own_folder, remove_entry, 128, FTW_DEPTH | FTW_PHYS);
}

/* Makes an empty folder below /tmp and enters it; it is removed when the program exits. */
static inline void enter_own_folder(void)
{
	strcpy(own_folder, "/tmp/spore-linux-XXXXXX");
	if (!mkdtemp(own_folder) || chdir(own_folder) == -1) {
		perror("a folder below /tmp");
		exit(EXIT_UNPREPARED);
	}
	umask(022);
	own_folder_maker = getpid();
	atexit(remove_own_folder);
}

/* Makes a file that holds the text, and nothing else. */
static inline void write_file(const char *path, const char *text)
{
	int file = MUST(open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
	MUST(write(file, text, strlen(text)));
	close(file);
}

/* Prints what a file holds; bytes that are no text are shown as dots. */
static inline void show_file(const char *path)
{
	char text[512];
	int file = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t length = file == -1 ? -1 : read(file, text, sizeof text);
	if (length == -1) {
		printf("%s: %s\n", path, error_name(errno));
	} else {
		for (ssize_t index = 0; index < length; index++)
			if (text[index] != '\n' && (text[index] < ' ' || text[index] > '~'))
				text[index] = '.';
		printf("%s holds \"%.*s\"\n", path, (int)length, text);
	}
	if (file != -1)
		close(file);
}

/* Starts this program once more, with one argument, by which its main knows what to do. */
static inline pid_t spawn_self(const char *argument)
{
	extern char **environ;
	char *arguments[] = { "self", (char *)argument, NULL };
	pid_t child;
	errno = posix_spawn(&child, "/proc/self/exe", NULL, NULL, arguments, environ);
	return MUST(errno == 0 ? child : -1);
}

#endif
