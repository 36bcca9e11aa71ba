// calls: write read
// flags: none
// what: 16 MiB go into a file in one write and come back unchanged
#include "../check.h"

int main(void)
{
	size_t length = 16 << 20, wrong = 0;
	uint32_t *out = map_anonymous(length), *in = map_anonymous(length);
	enter_own_folder();
	for (size_t index = 0; index < length / 4; index++)
		out[index] = (uint32_t)index * 2654435761u;
	int file = MUST(open("data", O_RDWR | O_CREAT, 0644));
	VALUE(write(file, out, length));
	VALUE(pread(file, in, length, 0));
	for (size_t index = 0; index < length / 4; index++)
		wrong += in[index] != out[index];
	HOLDS(wrong == 0);
	VALUE(read(file, in, length));
	return 0;
}
