// calls: getdents64 openat
// flags: none
// what: /proc/self/task has a folder for each thread, with its name
#include "../check.h"
#include <sys/prctl.h>

static pthread_barrier_t barrier;
static pid_t worker;

static void *work(void *argument)
{
	prctl(PR_SET_NAME, "worker");
	worker = syscall(SYS_gettid);
	pthread_barrier_wait(&barrier);
	pthread_barrier_wait(&barrier);
	return argument;
}

int main(void)
{
	pthread_t thread;
	char path[64];
	int threads = 0;
	pthread_barrier_init(&barrier, NULL, 2);
	pthread_create(&thread, NULL, work, NULL);
	pthread_barrier_wait(&barrier);
	DIR *folder = opendir("/proc/self/task");
	for (struct dirent *entry; folder && (entry = readdir(folder));)
		threads += entry->d_name[0] != '.';
	VALUE(threads);
	snprintf(path, sizeof path, "/proc/self/task/%d/comm", worker);
	FILE *comm = fopen(path, "r");
	HOLDS(comm && fgets(path, sizeof path, comm) && strcmp(path, "worker\n") == 0);
	pthread_barrier_wait(&barrier);
	pthread_join(thread, NULL);
	return 0;
}
