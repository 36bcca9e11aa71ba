// calls: sendto recvfrom
// flags: MSG_OOB
// what: without urgent data MSG_OOB is EINVAL
#include "../network.h"

int main(void)
{
	int ends[2];
	char byte;
	tcp_pair(ends);
	VALUE(recv(ends[1], &byte, 1, MSG_OOB));
	VALUE(recv(ends[1], &byte, 1, MSG_OOB | MSG_DONTWAIT));
	return 0;
}
