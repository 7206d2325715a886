/* The making of a template; see template.h. */
#ifndef FIREBOX_CAPTURE_H
#define FIREBOX_CAPTURE_H

#include <stdbool.h>

/* Have a process of ours follow this one, which is about to become an interpreter, to where that waits: in its hook or, where
 * main_file is not empty, when it opens that file. What it is then is left in the working directory as PROTOCOL_TEMPLATE, and it
 * ends by SIGKILL. Where there is no template `error_stream` is told why. other_pid: getpid(2) returns another number meanwhile.
 * Returns once it is followed. */
void start_capture(const char *main_file, bool other_pid, int error_stream);

#endif
