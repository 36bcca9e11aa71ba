// calls: chdir clone
// flags: CLONE_FS
// what: the current folder and the umask belong to all threads
#include "../check.h"

static void *enter(void *argument)
{
	MUST(chdir("folder"));
	umask(077);
	return argument;
}

int main(void)
{
	pthread_t thread;
	enter_own_folder();
	MUST(mkdir("folder", 0755));
	write_file("folder/data", "text");
	pthread_create(&thread, NULL, enter, NULL);
	pthread_join(thread, NULL);
	show_file("data");
	HOLDS(umask(022) == 077);
	return 0;
}
