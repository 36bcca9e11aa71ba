// calls: nanosleep
// flags: none
// what: a sleep lasts at least its time; bad times are EINVAL, bad addresses EFAULT
#include "../check.h"

int main(void)
{
	struct timespec some = { 0, 20000000 }, none = { 0, 0 }, bad = { 0, 1000000000 }, negative = { -1, 0 };
	long start = now_ms();
	VALUE(nanosleep(&some, NULL));
	HOLDS(now_ms() - start >= 19);
	VALUE(nanosleep(&none, NULL));
	VALUE(nanosleep(&bad, NULL));
	VALUE(nanosleep(&negative, NULL));
	VALUE(nanosleep((void *)8, NULL));
	VALUE(usleep(1000));
	return 0;
}
