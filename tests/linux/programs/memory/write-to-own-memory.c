// calls: process_vm_readv process_vm_writev
// flags: none
// what: a process reads and writes its own memory by address, and stops at what is not mapped
#include "../check.h"

int main(void)
{
	char from[8] = "copied", to[8] = "";
	struct iovec local = { to, 7 }, remote = { from, 7 }, bad = { (void *)8, 7 };
	VALUE(process_vm_readv(getpid(), &local, 1, &remote, 1, 0));
	printf("read: %s\n", to);
	strcpy(to, "back");
	VALUE(process_vm_writev(getpid(), &local, 1, &remote, 1, 0));
	printf("written: %s\n", from);
	VALUE(process_vm_readv(getpid(), &local, 1, &bad, 1, 0));
	VALUE(process_vm_readv(getpid(), &local, 1, &remote, 1, 1));
	return 0;
}
