// calls: memfd_create fcntl ftruncate write mmap
// flags: MFD_ALLOW_SEALING F_ADD_SEALS F_GET_SEALS F_SEAL_SHRINK F_SEAL_GROW F_SEAL_WRITE F_SEAL_SEAL
// what: seals forbid shrinking, growing and writing for good; without MFD_ALLOW_SEALING none can be added
#include "../check.h"

int main(void)
{
	int file = MUST(memfd_create("sealed", MFD_ALLOW_SEALING)), plain = MUST(memfd_create("plain", 0));
	MUST(ftruncate(file, PAGE));
	VALUE(fcntl(file, F_GET_SEALS));
	VALUE(fcntl(file, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW));
	VALUE(ftruncate(file, 0));
	VALUE(ftruncate(file, 2 * PAGE));
	VALUE(pwrite(file, "x", 1, 0));
	VALUE(pwrite(file, "x", 1, PAGE));
	void *area = MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0));
	VALUE(fcntl(file, F_ADD_SEALS, F_SEAL_WRITE));
	MUST(munmap(area, PAGE));
	VALUE(fcntl(file, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SEAL));
	VALUE(pwrite(file, "x", 1, 0));
	OUTCOME(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0));
	VALUE(fcntl(file, F_ADD_SEALS, F_SEAL_GROW));
	VALUE(fcntl(file, F_GET_SEALS));
	VALUE(fcntl(plain, F_GET_SEALS));
	VALUE(fcntl(plain, F_ADD_SEALS, F_SEAL_GROW));
	return 0;
}
