// calls: mmap close unlink
// flags: MAP_SHARED MAP_PRIVATE
// what: a mapping stays after its descriptor is closed and the name of its file removed
#include "../check.h"

int main(void)
{
	enter_own_folder();
	write_file("data", "still here");
	int file = MUST(open("data", O_RDWR));
	char *shared = MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0));
	char *private = MUST(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, file, 0));
	VALUE(close(file));
	VALUE(unlink("data"));
	printf("%s, %s\n", shared, private);
	shared[0] = 'S';
	HOLDS(shared[0] == 'S');
	OUTCOME(open("data", O_RDONLY));
	return 0;
}
