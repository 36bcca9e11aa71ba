// calls: write
// flags: none
// what: floating-point and integer numbers are printed in all forms
#include "../check.h"
#include <float.h>
#include <math.h>

int main(void)
{
	double numbers[] = { 0.0, -0.0, 1.0 / 3, 1e300, DBL_MIN, 123456.789, INFINITY, 5e-324 };
	for (int index = 0; index < 8; index++)
		printf("%g %e %.3f %a\n", numbers[index], numbers[index], numbers[index] > 1e200 ? 0
				: numbers[index], numbers[index]);
	printf("%Lf %.20Lg\n", 2.5L, 1.0L / 3);
	printf("%d %+5d %-5d| %05d %x %#o %ld\n", -1, 2, 3, 4, 255, 8, INT64_MIN);
	printf("%.10s|%5c|%%|%*d\n", "a long string", 'c', 6, 7);
	return 0;
}
