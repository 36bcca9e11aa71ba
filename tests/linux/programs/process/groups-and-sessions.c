// calls: setpgid setsid getpgid getsid
// flags: none
// what: a spawned process can lead a group and a session of its own
#include "../check.h"

int main(int count, char **arguments)
{
	int status;
	(void)arguments;
	if (count == 2) {
		HOLDS(getpgrp() != getpid());
		VALUE(setpgid(0, 0));
		HOLDS(getpgrp() == getpid());
		VALUE(setsid()); /* refused to the leader of a group */
		VALUE(setpgid(0x3ffffff, 0));
		VALUE(setpgid(0, -1));
		return 0;
	}
	MUST(waitpid(spawn_self("child"), &status, 0));
	show_status("child", status);
	return 0;
}
