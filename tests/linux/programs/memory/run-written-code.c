// calls: mmap mprotect
// flags: PROT_EXEC
// what: code written into memory runs once it is executable, and again after it was changed, as JIT compilers do
#include "../check.h"

int main(void)
{
	unsigned char *area = map_anonymous(PAGE);
	int (*function)(void) = (int (*)(void))area;
	memcpy(area, "\xb8\x2a\x00\x00\x00\xc3", 6); /* mov $42, %eax; ret */
	VALUE(mprotect(area, PAGE, PROT_READ | PROT_EXEC));
	VALUE(function());
	VALUE(mprotect(area, PAGE, PROT_READ | PROT_WRITE));
	area[1] = 43;
	VALUE(mprotect(area, PAGE, PROT_READ | PROT_EXEC));
	VALUE(function());
	unsigned char *all = MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	memcpy(all, area, 6);
	function = (int (*)(void))all;
	VALUE(function());
	return 0;
}
