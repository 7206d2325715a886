/* The files that a command brings. */
#ifndef FIREBOX_FILES_H
#define FIREBOX_FILES_H

#include "message.h"

/* Write files below the working directory. packs: descriptors of `pack_count` files with the contents. held: the descriptor of a
 * file that cannot be opened, named held_name; -1 for none. *about is the file that a failure is about. */
int write_files(const struct packed_file *files, uint32_t count, const struct text *text, const int *packs, int pack_count,
                int held, const char *held_name, const char **about);

/* Check that a relative name stays below the folder that it is looked up in. */
bool stays_inside(const char *name);

/* Make the folders above a file, as far as they are not there. */
int make_folders_above(const char *name, const char **about);

#endif
