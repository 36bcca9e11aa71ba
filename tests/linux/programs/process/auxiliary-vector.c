// calls: execve
// flags: AT_PAGESZ AT_RANDOM AT_PHDR AT_ENTRY AT_EXECFN AT_UID
// what: the kernel's facts for a new program: page size, randomness, its headers and identity
#include "../check.h"
#include <elf.h>
#include <sys/auxv.h>

int main(void)
{
	VALUE(getauxval(AT_PAGESZ));
	HOLDS(getauxval(AT_RANDOM) != 0);
	HOLDS(getauxval(AT_PHDR) != 0 && getauxval(AT_PHNUM) > 0);
	VALUE(getauxval(AT_PHENT));
	HOLDS(getauxval(AT_ENTRY) != 0);
	HOLDS(getauxval(AT_EXECFN) != 0 && ((char *)getauxval(AT_EXECFN))[0] != 0);
	VALUE(getauxval(AT_UID));
	VALUE(getauxval(AT_SECURE));
	VALUE(getauxval(AT_CLKTCK));
	HOLDS(getauxval(AT_HWCAP) != 0);
	HOLDS(strcmp((char *)getauxval(AT_PLATFORM), "x86_64") == 0);
	const Elf64_Phdr *headers = (void *)getauxval(AT_PHDR);
	int loaded = 0;
	for (size_t index = 0; index < getauxval(AT_PHNUM); index++)
		loaded += headers[index].p_type == PT_LOAD;
	HOLDS(loaded > 0);
	HOLDS(((uintptr_t)__builtin_frame_address(0) & 15) == 0);
	return 0;
}
