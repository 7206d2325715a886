/* Copying of files that anybody may read. */
#ifndef FIREBOX_COPY_H
#define FIREBOX_COPY_H

/* Copy a file, link or folder as far as everybody may read it; the rest is left out, as is what is there already. */
int copy_readable(const char *source, const char *target);

#endif
