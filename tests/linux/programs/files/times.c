// calls: utimensat
// flags: UTIME_NOW UTIME_OMIT AT_SYMLINK_NOFOLLOW
// what: access and change times are set to the nanosecond, to now, or left; bad nanoseconds are EINVAL
#include "../check.h"

static void show_times(const char *path)
{
	struct stat found;
	MUST(lstat(path, &found));
	printf("%s: %ld.%09ld %ld.%09ld\n", path, (long)found.st_atim.tv_sec, found.st_atim.tv_nsec,
		   (long)found.st_mtim.tv_sec, found.st_mtim.tv_nsec);
}

int main(void)
{
	struct timespec times[2] = { { 1000, 123456789 }, { 2000, 5 } }, bad[2] = { { 1, 1000000000 }, { 1, 0 } };
	struct timespec omit[2] = { { 0, UTIME_OMIT }, { 3000, 0 } }, now[2] = { { 0, UTIME_OMIT }, { 0, UTIME_NOW } };
	struct stat found;
	enter_own_folder();
	write_file("data", "text");
	MUST(symlink("data", "link"));
	VALUE(utimensat(AT_FDCWD, "data", times, 0));
	show_times("data");
	VALUE(utimensat(AT_FDCWD, "data", omit, 0));
	show_times("data");
	VALUE(utimensat(AT_FDCWD, "link", times, AT_SYMLINK_NOFOLLOW));
	show_times("link"), show_times("data");
	VALUE(futimens(MUST(open("data", O_RDONLY)), now));
	MUST(stat("data", &found));
	HOLDS(found.st_mtim.tv_sec > 1600000000 && found.st_atim.tv_sec == 1000);
	VALUE(utimensat(AT_FDCWD, "data", bad, 0));
	VALUE(utimensat(AT_FDCWD, "missing", times, 0));
	return 0;
}
