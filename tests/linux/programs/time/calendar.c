// calls: none
// flags: none
// what: broken-down time, formats and the way back agree for UTC
#include "../check.h"

int main(void)
{
	char text[64];
	time_t moments[] = { 0, 951782400, 1000000000, 4102444799 };
	setenv("TZ", "UTC0", 1);
	for (int index = 0; index < 4; index++) {
		struct tm broken;
		gmtime_r(&moments[index], &broken);
		strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S %A %j", &broken);
		puts(text);
		HOLDS(timegm(&broken) == moments[index] && mktime(&broken) == moments[index]);
	}
	return 0;
}
