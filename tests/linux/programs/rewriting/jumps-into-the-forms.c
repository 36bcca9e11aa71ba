// calls: umask close
// flags: none
// what: a jump to an instruction that a call site's rewriting has overwritten executes it, before and after many calls
#include "forms.h"

int main(void)
{
	umask(022);
	for (int round = 0; round < 3; round++) {
		VALUE(at_the_comparison(5));
		VALUE(at_the_comparison(-5));
		VALUE(within_the_moves(SYS_umask, 033, 0, 0));
		VALUE(moved(SYS_umask, 022, 0, 0, 0, 0, 0));
		for (int call = 0; call < 100; call++) {
			compared(SYS_umask, 022, 0, 0);
			moved(SYS_umask, 022, 0, 0, 0, 0, 0);
		}
	}
	return 0;
}
