// calls: clone gettid exit futex set_tid_address
// flags: CLONE_VM CLONE_FS CLONE_FILES CLONE_SIGHAND CLONE_THREAD CLONE_PARENT_SETTID CLONE_CHILD_CLEARTID
// what: clone writes the identifier of the thread, clears it when the thread ends, and wakes who waits for that
#include "../check.h"
#include "../futex.h"

static int parent_tid, child_tid = -1, result;
static pid_t seen_tid, seen_pid;

static int body(void *argument)
{
	seen_tid = syscall(SYS_gettid);
	seen_pid = syscall(SYS_getpid);
	result = *(int *)argument * 2;
	syscall(SYS_exit, 0);
	return 0;
}

int main(void)
{
	int argument = 21;
	char *stack = map_anonymous(16 * PAGE);
	int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM |
				CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID;
	int thread = clone(body, stack + 16 * PAGE, flags, &argument, &parent_tid, NULL, &child_tid);
	HOLDS(thread > 0);
	HOLDS(parent_tid == thread);
	for (int value; (value = __atomic_load_n(&child_tid, __ATOMIC_SEQ_CST)) != 0;)
		syscall(SYS_futex, &child_tid, FUTEX_WAIT, value, NULL);
	HOLDS(seen_tid == thread);
	HOLDS(seen_pid == getpid());
	VALUE(result);
	return 0;
}
