// calls: personality
// flags: none
// what: the personality is that of Linux, and asking does not change it
#include "../check.h"
#include <sys/personality.h>

int main(void)
{
	VALUE(personality(0xffffffff) & 0xff);
	HOLDS((personality(0xffffffff) & 0xff) == PER_LINUX);
	return 0;
}
