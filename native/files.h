/* The input files of a command. */
#ifndef FIREBOX_FILES_H
#define FIREBOX_FILES_H

#include "message.h"

/* Write files below the working directory. packs: `pack_count` descriptors with the contents. held: the descriptor of the file
 * held_name, which cannot be opened because of a lease; -1 for none. *about: the file that failed. */
int write_files(const struct packed_file *files, uint32_t count, const struct text *text, const int *packs, int pack_count,
                int held, const char *held_name, const char **about);

/* Check that a relative name stays below its folder. */
bool stays_inside(const char *name);

/* Create the missing parent folders of a file. */
int make_folders_above(const char *name, const char **about);

#endif
