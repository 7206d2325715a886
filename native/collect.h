/* Collection of output files by PID 1, with no more privileges than the program had. */
#ifndef FIREBOX_COLLECT_H
#define FIREBOX_COLLECT_H

#include "protocol.h"

/* Send the matching files of the working directory: a `struct collect_index`, what it counts, then the contents. text: the
 * patterns, NUL-terminated; the caller has checked their number and the last NUL. */
void collect(int sink, const struct collect *request, const char *text);

#endif
