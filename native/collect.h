/* Taking files out of a sandbox, from inside it, with no more rights than the program had. */
#ifndef FIREBOX_COLLECT_H
#define FIREBOX_COLLECT_H

#include "protocol.h"

/* Send the files of the working directory that match: a `struct collect_index`, what it counts, then the contents. `text`
 * holds the patterns, each with a NUL after it; the caller has checked their number and the last NUL. */
void collect(int sink, const struct collect *request, const char *text);

#endif
