// calls: openat read write lseek newfstatat
// flags: none
// what: buffered files: line reading, seeking, memory streams, formatted output to strings
#include "../check.h"

int main(void)
{
	char *line = NULL, *memory = NULL;
	size_t capacity = 0, length = 0;
	enter_own_folder();
	FILE *file = fopen("data", "w+e");
	for (int index = 0; index < 5000; index++)
		fprintf(file, "line %d\n", index);
	VALUE(ftell(file));
	VALUE(fseek(file, 21, SEEK_SET));
	VALUE(getline(&line, &capacity, file));
	printf("%s", line);
	rewind(file);
	int lines = 0;
	while (getline(&line, &capacity, file) > 0)
		lines++;
	VALUE(lines);
	FILE *stream = open_memstream(&memory, &length);
	fprintf(stream, "%s and %d", "text", 7);
	fclose(stream);
	printf("%s, %zu bytes\n", memory, length);
	HOLDS(asprintf(&line, "%08.3f", 3.14159) == 8);
	puts(line);
	stream = fmemopen("one two", 7, "r");
	char word[8];
	VALUE(fscanf(stream, "%7s", word));
	puts(word);
	return 0;
}
