// calls: openat
// flags: none
// what: time zones given by rule, with summer time, without any file
#include "../check.h"

int main(void)
{
	char text[64];
	time_t moments[] = { 1720000000, 1700000000 };
	setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3", 1);
	tzset();
	for (int index = 0; index < 2; index++) {
		struct tm broken;
		localtime_r(&moments[index], &broken);
		strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S %Z %z", &broken);
		puts(text);
		HOLDS(mktime(&broken) == moments[index]);
	}
	struct tm parsed = { 0 };
	HOLDS(strptime("2024-02-29 12:34:56", "%Y-%m-%d %H:%M:%S", &parsed) != NULL);
	VALUE(parsed.tm_yday);
	return 0;
}
