/* A program that ends before it listens, with a line to standard error and a status that no shell would give. */
#include <stdio.h>

int main(void)
{
	fputs("quitter: nothing to do\n", stderr);
	return 9;
}
