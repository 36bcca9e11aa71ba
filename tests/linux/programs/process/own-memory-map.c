// calls: openat read
// flags: none
// what: /proc/self/maps has a line for each area, with its protection, and names the stack and the program
#include "../check.h"

int main(void)
{
	char line[512], protection[8], *area = map_anonymous(3 * PAGE);
	unsigned long start, end, before = 0;
	int stack = 0, program = 0, own = 0, ordered = 1;
	MUST(mprotect(area + PAGE, PAGE, PROT_READ));
	FILE *maps = fopen("/proc/self/maps", "r");
	HOLDS(maps != NULL);
	while (maps && fgets(line, sizeof line, maps)) {
		if (sscanf(line, "%lx-%lx %7s", &start, &end, protection) != 3)
			continue;
		ordered &= start >= before && end > start;
		before = end;
		stack += strstr(line, "[stack]") != NULL && start <= (unsigned long)line && (unsigned long)line < end;
		program += strcmp(protection, "r-xp") == 0 && start <= (unsigned long)main && (unsigned long)main < end;
		own += start == (unsigned long)area + PAGE && end == (unsigned long)area + 2 * PAGE &&
				strcmp(protection, "r--p") == 0;
	}
	VALUE(stack);
	VALUE(program);
	VALUE(own);
	VALUE(ordered);
	return 0;
}
