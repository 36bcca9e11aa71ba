/* What the files of this function share. */
#ifndef MISBEHAVE_H
#define MISBEHAVE_H

/* Writes garbage over every writable page; does not come back where that works. */
void scribble_over_everything(void);

/* Writes garbage over one named place of the unikernel's memory. Returns 0 if there is no such name. */
int scribble_over(const char *place);

/* The names that scribble_over takes, separated by spaces. */
const char *scribble_places(void);

#endif
