// calls: socket ioctl
// flags: SIOCGIFFLAGS SIOCGIFADDR
// what: the loopback interface is up and has its address
#include "../network.h"
#include <net/if.h>
#include <sys/ioctl.h>

int main(void)
{
	struct ifreq request = { .ifr_name = "lo" };
	char text[INET_ADDRSTRLEN];
	int any = MUST(socket(AF_INET, SOCK_DGRAM, 0));
	VALUE(ioctl(any, SIOCGIFFLAGS, &request));
	HOLDS((request.ifr_flags & (IFF_UP | IFF_LOOPBACK)) == (IFF_UP | IFF_LOOPBACK));
	VALUE(ioctl(any, SIOCGIFADDR, &request));
	puts(inet_ntop(AF_INET, &((struct sockaddr_in *)&request.ifr_addr)->sin_addr, text, sizeof text));
	strcpy(request.ifr_name, "missing");
	VALUE(ioctl(any, SIOCGIFFLAGS, &request));
	HOLDS(if_nametoindex("lo") > 0);
	return 0;
}
