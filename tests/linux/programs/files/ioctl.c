// calls: ioctl
// flags: FIONREAD FIONBIO FIOCLEX TCGETS
// what: FIONREAD counts what can be read, FIONBIO and FIOCLEX set flags, terminals' requests are ENOTTY on files
#include "../check.h"
#include <sys/ioctl.h>
#include <termios.h>

int main(void)
{
	int channel[2], count = -1, on = 1;
	struct termios settings;
	enter_own_folder();
	write_file("data", "0123456789");
	int file = MUST(open("data", O_RDONLY));
	MUST(pipe(channel));
	MUST(write(channel[1], "abc", 3));
	VALUE(ioctl(channel[0], FIONREAD, &count));
	VALUE(count);
	MUST(lseek(file, 4, SEEK_SET));
	VALUE(ioctl(file, FIONREAD, &count));
	VALUE(count);
	VALUE(ioctl(channel[0], FIONBIO, &on));
	HOLDS(fcntl(channel[0], F_GETFL) & O_NONBLOCK);
	VALUE(ioctl(file, FIOCLEX));
	VALUE(fcntl(file, F_GETFD));
	VALUE(ioctl(file, FIONCLEX));
	VALUE(fcntl(file, F_GETFD));
	VALUE(tcgetattr(file, &settings));
	VALUE(isatty(channel[0]));
	VALUE(ioctl(file, 0x12345678, &count));
	VALUE(ioctl(1000, FIONREAD, &count));
	return 0;
}
