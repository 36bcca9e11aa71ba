// calls: write
// flags: ERANGE
// what: numbers are read from text with their limits
#include "../check.h"

int main(void)
{
	char *end;
	printf("%.17g\n", strtod("0.1", &end));
	printf("%.17g\n", strtod("1e-320rest", &end));
	puts(end);
	errno = 0;
	HOLDS(strtod("1e999", NULL) > 1e308 && errno == ERANGE);
	VALUE(strtol("0x7f", NULL, 0));
	VALUE(strtol("-077", NULL, 8));
	errno = 0;
	HOLDS(strtol("99999999999999999999", NULL, 10) == INT64_MAX && errno == ERANGE);
	float real;
	int number;
	VALUE(sscanf("12 3.5 x", "%d %f", &number, &real));
	printf("%d %.1f\n", number, (double)real);
	return 0;
}
