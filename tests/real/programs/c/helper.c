/* The helper that other programs start: prints its arguments, one variable, and its input turned to capitals. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

int main(int count, char **arguments) {
  for (int i = 1; i < count; i++) printf("argument %d: %s\n", i, arguments[i]);
  const char *colour = getenv("COLOUR");
  if (colour) printf("colour: %s\n", colour);
  for (int c; (c = getchar()) != EOF;) putchar(toupper(c));
  fprintf(stderr, "helper is done\n");
  return count;
}
