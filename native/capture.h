/* Capture of an interpreter as a template; see template.h. */
#ifndef FIREBOX_CAPTURE_H
#define FIREBOX_CAPTURE_H

#include <stdbool.h>

/* Fork a tracer for this process, which is about to execve(2) an interpreter. The tracer follows it to where it waits: in its
 * hook or, with a main_file, where it opens that file. Then it writes PROTOCOL_TEMPLATE to the working directory and kills the
 * interpreter. It reports failures to `error_stream`. other_pid: getpid(2) returns a wrong number until then. Returns once the
 * process is traced. */
void start_capture(const char *main_file, bool other_pid, int error_stream);

#endif
