// calls: openat mmap mprotect close
// flags: RTLD_NOW
// what: a library is loaded while the program runs, and its functions are found and called
// needs: libm.so.6
#include "../check.h"
#include <dlfcn.h>

int main(void)
{
	void *library = dlopen("libm.so.6", RTLD_NOW | RTLD_LOCAL);
	HOLDS(library != NULL);
	if (!library)
		return 1;
	double (*cosine)(double) = (double (*)(double))dlsym(library, "cos");
	HOLDS(cosine != NULL);
	printf("%.6f\n", cosine(1.0));
	HOLDS(dlsym(library, "no such function") == NULL);
	VALUE(dlclose(library));
	HOLDS(dlopen("missing.so", RTLD_NOW) == NULL);
	return 0;
}
