// calls: fcntl
// flags: F_GETFL F_SETFL O_NONBLOCK O_APPEND
// what: F_GETFL shows access mode and flags; F_SETFL changes some and ignores others; duplicates share them
#include "../check.h"

int main(void)
{
	int shown = O_ACCMODE | O_APPEND | O_NONBLOCK | O_CREAT | O_TRUNC;
	enter_own_folder();
	int file = MUST(open("data", O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0644)), copy = dup(file);
	HOLDS((fcntl(file, F_GETFL) & shown) == (O_WRONLY | O_APPEND));
	VALUE(fcntl(file, F_SETFL, O_NONBLOCK));
	HOLDS((fcntl(copy, F_GETFL) & shown) == (O_WRONLY | O_NONBLOCK));
	VALUE(fcntl(copy, F_SETFL, O_RDWR | O_APPEND));
	HOLDS((fcntl(file, F_GETFL) & shown) == (O_WRONLY | O_APPEND));
	VALUE(fcntl(1000, F_GETFL));
	VALUE(fcntl(file, 9999));
	return 0;
}
