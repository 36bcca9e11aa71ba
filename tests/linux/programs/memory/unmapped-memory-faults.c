// calls: munmap mprotect mremap
// flags: PROT_NONE MREMAP_MAYMOVE
// what: memory of any size that was unmapped, moved away or made inaccessible faults when it is touched
#include "../check.h"
#include <setjmp.h>
#include <signal.h>

static sigjmp_buf back;
static void *volatile fault_address;
static volatile int fault_code;

static void on_fault(int number, siginfo_t *information, __attribute__((unused)) void *context)
{
	fault_address = information->si_addr;
	fault_code = information->si_code;
	siglongjmp(back, number);
}

static void touch(const char *what, volatile char *place)
{
	fault_address = NULL;
	fault_code = 0;
	int number = sigsetjmp(back, 1);
	if (number == 0)
		*place = 'x';
	printf("%s: %s %s\n", what, number == 0 ? "no fault" : number == SIGSEGV ? "SIGSEGV" : "another signal",
	       number == 0 || fault_address != place ? "" : fault_code == SEGV_MAPERR ? "MAPERR" : "ACCERR");
}

int main(void)
{
	struct sigaction action = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };
	MUST(sigaction(SIGSEGV, &action, NULL));
	for (size_t size = PAGE; size <= 4096 * PAGE; size *= 2) {
		printf("%zu KiB\n", size / 1024);
		char *area = map_anonymous(size);
		memset(area, 'x', size);
		MUST(mprotect(area, PAGE, PROT_NONE));
		touch("protected", area);
		MUST(munmap(area, size));
		touch("unmapped, its first byte", area);
		touch("unmapped, its last byte", area + size - 1);
		area = map_anonymous(size);
		area[size - 1] = 'y';
		char *moved = mremap(area, size, 2 * size, MREMAP_MAYMOVE);
		HOLDS(moved != MAP_FAILED && moved[size - 1] == 'y');
		if (moved != area)
			touch("unmapped, its first byte", area);
		else
			printf("unmapped, its first byte: SIGSEGV MAPERR\n");
		MUST(munmap(moved, 2 * size));
		touch("unmapped, its last byte", moved + 2 * size - 1);
	}
	return 0;
}
