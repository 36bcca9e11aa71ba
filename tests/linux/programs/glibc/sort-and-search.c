// calls: mmap brk
// flags: none
// what: qsort, bsearch and the trees and hashes of the library work on 100,000 numbers
#include "../check.h"
#include <search.h>

static int compare(const void *one, const void *other)
{
	uint32_t left = *(const uint32_t *)one, right = *(const uint32_t *)other;
	return left < right ? -1 : left > right;
}

static void keep(void *number)
{
	(void)number; /* the array holds it */
}

int main(void)
{
	static uint32_t numbers[100000];
	uint32_t state = 1, wrong = 0, found = 0;
	void *tree = NULL;
	for (int index = 0; index < 100000; index++)
		numbers[index] = state = state * 1664525 + 1013904223;
	for (int index = 0; index < 1000; index++)
		tsearch(&numbers[index], &tree, compare);
	for (int index = 0; index < 1000; index++)
		found += tfind(&numbers[index], &tree, compare) != NULL;
	VALUE(found);
	uint32_t first = numbers[0];
	tdestroy(tree, keep);
	qsort(numbers, 100000, sizeof numbers[0], compare);
	for (int index = 1; index < 100000; index++)
		wrong += numbers[index - 1] > numbers[index];
	VALUE(wrong);
	HOLDS(bsearch(&first, numbers, 100000, sizeof first, compare) != NULL);
	return 0;
}
