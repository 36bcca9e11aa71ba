// calls: rt_sigaction mmap ftruncate
// flags: SA_SIGINFO BUS_ADRERR MAP_SHARED
// what: touching pages behind the end of a mapped file is SIGBUS with BUS_ADRERR, also after it was cut
#include "../check.h"
#include <setjmp.h>

static sigjmp_buf back;
static volatile int code, signal_number;
static char *volatile address;

static void handle(int number, siginfo_t *info, void *context)
{
	(void)context;
	signal_number = number;
	code = info->si_code;
	address = info->si_addr;
	siglongjmp(back, 1);
}

int main(void)
{
	struct sigaction action = { .sa_sigaction = handle, .sa_flags = SA_SIGINFO };
	enter_own_folder();
	int file = MUST(open("data", O_RDWR | O_CREAT, 0644));
	MUST(ftruncate(file, 2 * PAGE));
	volatile char *area = MUST(mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0));
	MUST(sigaction(SIGBUS, &action, NULL));
	MUST(sigaction(SIGSEGV, &action, NULL));
	if (sigsetjmp(back, 1) == 0)
		printf("read %d\n", area[2 * PAGE]);
	HOLDS(signal_number == SIGBUS && code == BUS_ADRERR && address == area + 2 * PAGE);
	area[PAGE] = 1;
	MUST(ftruncate(file, PAGE));
	if (sigsetjmp(back, 1) == 0)
		area[PAGE + 1] = 1;
	HOLDS(signal_number == SIGBUS && code == BUS_ADRERR && address == area + PAGE + 1);
	MUST(ftruncate(file, 3 * PAGE));
	HOLDS(area[PAGE] == 0);
	return 0;
}
