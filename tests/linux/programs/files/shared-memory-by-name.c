// calls: openat ftruncate mmap unlink
// flags: O_CREAT O_EXCL MAP_SHARED
// what: shm_open makes, finds and removes memory by name below /dev/shm
#include "../check.h"

int main(void)
{
	char name[64];
	snprintf(name, sizeof name, "/spore-linux-%d", getpid());
	int file = MUST(shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600));
	MUST(ftruncate(file, PAGE));
	char *area = MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0));
	strcpy(area, "shared");
	int second = shm_open(name, O_RDONLY, 0);
	HOLDS(second != -1);
	char *view = MUST(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, second, 0));
	puts(view);
	OUTCOME(shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600));
	VALUE(shm_unlink(name));
	VALUE(shm_unlink(name));
	OUTCOME(shm_open(name, O_RDONLY, 0));
	puts(view);
	return 0;
}
