// calls: eventfd2 read write
// flags: EFD_NONBLOCK EFD_CLOEXEC
// what: writes add up, a read takes the sum, zero is EAGAIN; short buffers and the largest number are EINVAL
#include "../check.h"
#include <sys/eventfd.h>

int main(void)
{
	uint64_t value = 3;
	int counter = MUST(eventfd(2, EFD_NONBLOCK | EFD_CLOEXEC));
	VALUE(write(counter, &value, 8));
	VALUE(read(counter, &value, 8));
	VALUE(value);
	VALUE(read(counter, &value, 8));
	value = UINT64_MAX;
	VALUE(write(counter, &value, 8));
	value = UINT64_MAX - 1;
	VALUE(write(counter, &value, 8));
	value = 1;
	VALUE(write(counter, &value, 8));
	VALUE(read(counter, &value, 7));
	VALUE(write(counter, &value, 4));
	VALUE(read(counter, &value, 8));
	HOLDS(value == UINT64_MAX - 1);
	VALUE(eventfd(0, 0x100));
	VALUE(fcntl(counter, F_GETFD));
	return 0;
}
