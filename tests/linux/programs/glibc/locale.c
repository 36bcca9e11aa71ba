// calls: openat mmap
// flags: LC_ALL
// what: wide characters, upper case and lengths follow the C.UTF-8 locale
// needs: /usr/lib/locale/C.utf8
#include "../check.h"
#include <langinfo.h>
#include <locale.h>
#include <wchar.h>
#include <wctype.h>

int main(void)
{
	wchar_t wide[32];
	char narrow[32];
	puts(setlocale(LC_ALL, NULL));
	HOLDS(mbstowcs(wide, "gr\xc3\xbc\xc3\x9f", 32) == (size_t)-1);
	HOLDS(setlocale(LC_ALL, "C.UTF-8") != NULL);
	puts(nl_langinfo(CODESET));
	VALUE(mbstowcs(wide, "gr\xc3\xbc\xc3\x9f", 32));
	wide[2] = towupper(wide[2]);
	VALUE(wcstombs(narrow, wide, 32));
	puts(narrow);
	HOLDS(setlocale(LC_ALL, "xx_XX.missing") == NULL);
	puts(localeconv()->decimal_point);
	return 0;
}
