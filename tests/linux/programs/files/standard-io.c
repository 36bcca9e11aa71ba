// calls: openat read write lseek readv writev
// flags: none
// what: buffered files of the C library: append, seek, push back, formatted reading, end of file
#include "../check.h"

int main(void)
{
	int number = 0;
	char word[16] = "";
	enter_own_folder();
	FILE *file = fopen("data", "w+");
	fprintf(file, "%d %s %.3f\n", 42, "word", 2.5);
	VALUE(fseek(file, 0, SEEK_SET));
	VALUE(fscanf(file, "%d %15s", &number, word));
	printf("%d %s\n", number, word);
	VALUE(ungetc('u', file));
	VALUE(fgetc(file));
	VALUE(ftell(file));
	VALUE(fclose(file));
	file = fopen("data", "a+");
	fputs("appended\n", file);
	rewind(file);
	while (fgets(word, sizeof word, file))
		fputs(word, stdout);
	HOLDS(feof(file) && !ferror(file));
	fclose(file);
	HOLDS(fopen("missing", "r") == NULL && errno == ENOENT);
	file = tmpfile();
	HOLDS(file != NULL && fputs("text", file) >= 0 && fflush(file) == 0);
	return 0;
}
