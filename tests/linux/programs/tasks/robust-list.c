// calls: set_robust_list get_robust_list
// flags: none
// what: the robust list of a thread can be set and read back; a wrong size of its head is EINVAL
#include "../check.h"

int main(void)
{
	struct {
		void *list;
		long offset;
		void *pending;
	} head = { &head, 0, NULL }, *found = NULL;
	size_t length = 0;
	VALUE(syscall(SYS_set_robust_list, &head, sizeof head));
	VALUE(syscall(SYS_get_robust_list, 0, &found, &length));
	HOLDS(found == (void *)&head);
	VALUE(length);
	VALUE(syscall(SYS_set_robust_list, &head, sizeof head - 8));
	return 0;
}
