// calls: getrandom
// flags: GRND_NONBLOCK GRND_RANDOM
// what: getrandom fills buffers with bytes that differ; unknown flags are EINVAL, bad buffers EFAULT
#include "../check.h"
#include <sys/random.h>

int main(void)
{
	static unsigned char one[5000], two[5000];
	int seen[256] = { 0 }, different = 0;
	VALUE(getrandom(one, sizeof one, 0));
	VALUE(getrandom(two, sizeof two, GRND_NONBLOCK));
	HOLDS(memcmp(one, two, sizeof one) != 0);
	for (size_t index = 0; index < sizeof one; index++)
		different += seen[one[index]]++ == 0;
	HOLDS(different == 256);
	VALUE(getrandom(one, 16, GRND_RANDOM));
	VALUE(getrandom(one, 0, 0));
	VALUE(getrandom(one, 16, 1 << 20));
	VALUE(getrandom((void *)8, 16, 0));
	return 0;
}
