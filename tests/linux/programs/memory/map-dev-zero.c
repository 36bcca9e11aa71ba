// calls: mmap open
// flags: MAP_PRIVATE MAP_SHARED
// what: a mapping of /dev/zero is anonymous memory
#include "../check.h"

int main(void)
{
	int zero = MUST(open("/dev/zero", O_RDWR));
	char *private = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, zero, 0);
	HOLDS(private != MAP_FAILED && private[0] == 0 && private[2 * PAGE - 1] == 0);
	private[0] = 'x';
	char *shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, zero, 0);
	HOLDS(shared != MAP_FAILED && shared[0] == 0);
	shared[0] = 'y';
	HOLDS(private[0] == 'x' && shared[0] == 'y');
	return 0;
}
