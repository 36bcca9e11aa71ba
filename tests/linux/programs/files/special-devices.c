// calls: openat read write
// flags: none
// what: /dev/null swallows, /dev/zero gives zeros, /dev/full is ENOSPC, the sources of randomness give bytes
#include "../check.h"

int main(void)
{
	unsigned char bytes[64], again[64];
	struct stat found;
	memset(bytes, 1, sizeof bytes);
	int null = MUST(open("/dev/null", O_RDWR)), zero = MUST(open("/dev/zero", O_RDWR));
	int full = MUST(open("/dev/full", O_RDWR)), random = MUST(open("/dev/urandom", O_RDONLY));
	VALUE(write(null, "text", 4));
	VALUE(read(null, bytes, 64));
	VALUE(read(zero, bytes, 64));
	HOLDS(bytes[0] == 0 && bytes[63] == 0);
	VALUE(write(zero, "text", 4));
	VALUE(write(full, "text", 4));
	VALUE(read(full, bytes, 4));
	VALUE(read(random, bytes, 64));
	VALUE(read(random, again, 64));
	HOLDS(memcmp(bytes, again, 64) != 0);
	MUST(fstat(null, &found));
	HOLDS(S_ISCHR(found.st_mode));
	return 0;
}
