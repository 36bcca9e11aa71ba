// calls: mmap ftruncate
// flags: MAP_SHARED
// what: a file of 1 GiB that holds next to nothing can be mapped whole and touched at its end
#include "../check.h"

int main(void)
{
	size_t length = 1ul << 30;
	char last = 0;
	enter_own_folder();
	int file = MUST(open("data", O_RDWR | O_CREAT, 0644));
	VALUE(ftruncate(file, length));
	char *area = MUST(mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0));
	HOLDS(area[length / 2] == 0);
	area[length - 1] = 'x';
	VALUE(pread(file, &last, 1, length - 1));
	HOLDS(last == 'x');
	return 0;
}
