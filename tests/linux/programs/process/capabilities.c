// calls: capget
// flags: _LINUX_CAPABILITY_VERSION_3
// what: capabilities are told; an unknown version is EINVAL and answered with the right one
#include "../check.h"

int main(void)
{
	uint32_t header[2] = { 0x20080522, 0 }, data[6] = { 0 };
	VALUE(syscall(SYS_capget, header, data));
	HOLDS((data[0] & 1) == 1); /* CAP_CHOWN, which root has in containers as well */
	header[0] = 7;
	VALUE(syscall(SYS_capget, header, data));
	HOLDS(header[0] == 0x20080522);
	header[1] = 0x3ffffff;
	VALUE(syscall(SYS_capget, header, data));
	VALUE(syscall(SYS_capget, 8, data));
	return 0;
}
