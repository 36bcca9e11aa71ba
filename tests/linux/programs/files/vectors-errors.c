// calls: readv writev
// flags: IOV_MAX
// what: a negative or too large count and a negative length are EINVAL; bad buffers EFAULT
#include "../check.h"

int main(void)
{
	char text[8];
	static struct iovec many[1025];
	struct iovec negative = { text, (size_t)-1 }, bad = { (void *)8, 4 };
	struct iovec second_bad[2] = { { "good", 4 }, { (void *)8, 4 } };
	enter_own_folder();
	int file = MUST(open("data", O_RDWR | O_CREAT, 0644));
	for (int index = 0; index < 1025; index++)
		many[index] = (struct iovec){ "x", 1 };
	VALUE(writev(file, many, 1024));
	VALUE(writev(file, many, 1025));
	VALUE(writev(file, many, -1));
	VALUE(writev(file, &negative, 1));
	VALUE(writev(file, &bad, 1));
	VALUE(writev(file, (void *)8, 1));
	VALUE(writev(file, second_bad, 2));
	return 0;
}
