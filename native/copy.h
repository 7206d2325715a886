/* Copy world-readable files. */
#ifndef FIREBOX_COPY_H
#define FIREBOX_COPY_H

/* Copy a file, symlink or folder. Skips what is not world-readable, and what exists already. */
int copy_readable(const char *source, const char *target);

#endif
