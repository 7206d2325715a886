/* Files of /proc, read with bounded memory: a program in the sandbox controls their number and length.
 *
 * Arithmetic saturates at UINT64_MAX. What cannot be read or stored counts as that maximum, never as nothing. */
#ifndef FIREBOX_PROC_H
#define FIREBOX_PROC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A list that grows up to 4 MiB. Its memory is reused: set `used` to 0. */
#define PAIRS_MOST ((size_t)1 << 18)
struct pair {
    uint64_t high, low;
};
struct pairs {
    struct pair *items;
    size_t used, room;
};

/* Append a pair. Returns false when the list is full. */
bool pairs_add(struct pairs *pairs, uint64_t high, uint64_t low);

/* Sort in ascending order. */
void pairs_sort(struct pairs *pairs);

/* Sort and remove duplicates. */
void pairs_distinct(struct pairs *pairs);

/* Open a file to read lines. Only one can be open at a time. Returns 0 or an errno. */
int lines_open(const char *name);

/* Return the next line without its newline, or NULL. The middle of a very long line is dropped. */
const char *lines_next(void);

/* Close the file. Returns 0, or the errno of a failed read. */
int lines_close(void);

/* List all processes but PID 1, with the pid as `low`. Returns false when some may be missing. */
bool proc_list(struct pairs *processes);

/* Return the path of a file of a process, relative to /proc. Valid until the next call. */
const char *proc_path(uint64_t pid, const char *name);

/* Return a descriptor of /proc, or -1. Opened at the first call, which should come before the limit on open files is lowered. */
int proc_folder(void);

/* Return whether an errno means that a process or file is gone. */
bool proc_gone(int number);

/* Return the rest of a line from a word on, counted from 0; "" when there are fewer words. */
const char *word_at(const char *line, unsigned index);

/* Return the number at a word of a line; 0 for a negative one or none. hexadecimal: parse and advance *text. */
uint64_t number_at(const char *line, unsigned index);
uint64_t hexadecimal(const char **text);

#endif
