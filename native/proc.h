/* The files of /proc, read in pieces of bounded size: a program in the sandbox decides how long they are and how many.
 *
 * Sums and products that do not fit are UINT64_MAX, "the most": what cannot be read or kept counts as that, never as nothing. */
#ifndef FIREBOX_PROC_H
#define FIREBOX_PROC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A list that grows up to a bound, which is 4 MiB. Its memory is kept for the next use: set `used` to 0. */
#define PAIRS_MOST ((size_t)1 << 18)
struct pair {
    uint64_t high, low;
};
struct pairs {
    struct pair *items;
    size_t used, room;
};

/* Append. Returns false when there is no room. */
bool pairs_add(struct pairs *pairs, uint64_t high, uint64_t low);

/* Sort, the smallest first. */
void pairs_sort(struct pairs *pairs);

/* Sort, and keep one of those that are equal. */
void pairs_distinct(struct pairs *pairs);

/* Open the lines of a file. Only one file at a time is open so. Returns 0 or an errno. */
int lines_open(const char *name);

/* Return the next line without its end, or NULL. Of a line that is very long the middle is left out. */
const char *lines_next(void);

/* Close the file. Returns the errno of reading it, or 0. */
int lines_close(void);

/* List the processes but PID 1, the pid as `low`. Returns false when some may be missing. */
bool proc_list(struct pairs *processes);

/* Return the path of a file of a process, relative to /proc, for use before the next call. */
const char *proc_path(uint64_t pid, const char *name);

/* A descriptor of /proc, or -1. It is opened once, at the first call: early, while descriptors are plenty. */
int proc_folder(void);

/* Tell from an errno whether a process has ended, or a file is not there. */
bool proc_gone(int number);

/* Call for each entry of an open folder but "." and "..". Returns 0 or an errno. */
int each_entry(int folder, void (*entry)(int folder, const char *name, void *context), void *context);

/* Return a word of a line, counted from 0, and all after it; "" when there are fewer. */
const char *word_at(const char *line, unsigned index);

/* Return the number at the beginning of a word; 0 for a negative one or none. */
uint64_t number_at(const char *line, unsigned index);
uint64_t hexadecimal(const char **text);

#endif
