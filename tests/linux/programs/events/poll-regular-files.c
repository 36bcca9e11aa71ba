// calls: poll select
// flags: none
// what: files, folders and /dev/null are always ready
#include "../check.h"

int main(void)
{
	enter_own_folder();
	write_file("data", "");
	struct pollfd entries[3] = { { MUST(open("data", O_RDWR)), POLLIN | POLLOUT, 0 },
								 { MUST(open("/dev/null", O_RDWR)), POLLIN | POLLOUT, 0 },
								 { MUST(open("/dev/zero", O_RDWR)), POLLIN | POLLOUT, 0 } };
	VALUE(poll(entries, 3, -1));
	for (int index = 0; index < 3; index++)
		HOLDS(entries[index].revents == (POLLIN | POLLOUT));
	return 0;
}
