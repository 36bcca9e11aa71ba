// calls: epoll_create1 epoll_create epoll_ctl epoll_wait
// flags: none
// what: entries twice, missing, of files, of the set itself, and wrong counts each have their error
#include "../check.h"
#include <sys/epoll.h>

int main(void)
{
	int channel[2];
	struct epoll_event event = { .events = EPOLLIN };
	enter_own_folder();
	write_file("data", "text");
	MUST(pipe(channel));
	int set = MUST(epoll_create1(0)), file = MUST(open("data", O_RDONLY));
	VALUE(epoll_ctl(set, EPOLL_CTL_ADD, channel[0], &event));
	VALUE(epoll_ctl(set, EPOLL_CTL_ADD, channel[0], &event));
	VALUE(epoll_ctl(set, EPOLL_CTL_MOD, channel[1], &event));
	VALUE(epoll_ctl(set, EPOLL_CTL_DEL, channel[1], &event));
	VALUE(epoll_ctl(set, EPOLL_CTL_ADD, file, &event));
	VALUE(epoll_ctl(set, EPOLL_CTL_ADD, set, &event));
	VALUE(epoll_ctl(set, EPOLL_CTL_ADD, 1000, &event));
	VALUE(epoll_ctl(file, EPOLL_CTL_ADD, channel[1], &event));
	VALUE(epoll_ctl(set, 9, channel[1], &event));
	VALUE(epoll_ctl(set, EPOLL_CTL_ADD, channel[1], (void *)8));
	VALUE(epoll_wait(set, &event, 0, 0));
	VALUE(epoll_wait(set, &event, -1, 0));
	VALUE(epoll_wait(file, &event, 1, 0));
	VALUE(epoll_create1(1));
	VALUE(syscall(SYS_epoll_create, 0));
	return 0;
}
