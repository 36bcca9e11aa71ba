// calls: openat2
// flags: RESOLVE_NO_SYMLINKS RESOLVE_BENEATH RESOLVE_IN_ROOT
// what: openat2 restricts how a path is walked, and refuses unknown flags and sizes
#include "../check.h"

static long openat2(int folder, const char *path, uint64_t resolve)
{
	uint64_t how[3] = { O_RDONLY, 0, resolve };
	long result;
	/* Linux asks to try again when somebody else renames or mounts something while it walks upwards (openat2(2)). */
	do {
		result = syscall(437, folder, path, how, sizeof how);
	} while (result < 0 && errno == EAGAIN);
	return result;
}

int main(void)
{
	uint64_t how[4] = { O_RDONLY, 0, 0, 1 };
	enter_own_folder();
	MUST(mkdir("folder", 0755));
	write_file("folder/data", "text");
	MUST(symlink("data", "folder/link"));
	int folder = MUST(open("folder", O_RDONLY));
	OUTCOME(openat2(folder, "link", 0));
	OUTCOME(openat2(folder, "link", 0x04)); /* RESOLVE_NO_SYMLINKS */
	OUTCOME(openat2(folder, "link", 0x08)); /* RESOLVE_BENEATH */
	OUTCOME(openat2(folder, "../folder/data", 0x08));
	OUTCOME(openat2(folder, "/data", 0x08));
	OUTCOME(openat2(folder, "/../data", 0x10)); /* RESOLVE_IN_ROOT */
	OUTCOME(openat2(folder, "data", 0x1000));
	OUTCOME(syscall(437, folder, "data", how, 8ul));
	OUTCOME(syscall(437, folder, "data", how, sizeof how));
	return 0;
}
