/* The prestarted program of an idle sandbox: started before its command arrives.
 *
 * Interpreters run with their real command line. Some wait in a hook that they load at startup, before the main file: it reads
 * NUL-terminated words from the pipe PROTOCOL_GATE to its end, removes its own traces, and returns to the interpreter. Others
 * wait unknowingly where they open the main file, because PID 1 holds a lease on it. A compiler waits in a program of ours that
 * calls it. Each is used once. */
#ifndef FIREBOX_PRESTART_H
#define FIREBOX_PRESTART_H

#include <stdbool.h>

#include "program.h"

/* Start the program. program: command line, environment, streams. main: a file that must exist before, "" for none. held: the
 * program waits where it opens that file. */
int prestart_start(const struct program *program, const char *main, bool held);

/* Return whether a program is waiting. One that has ended is reaped. */
bool prestart_is_waiting(void);

/* Return the time until `prestart_renew` is due, in milliseconds; -1: never. */
int prestart_timeout_ms(void);

/* Replace it by a new one. */
int prestart_renew(void);

/* Kill it and every process of the sandbox. */
void prestart_kill(void);

/* Return the descriptor to write the main file with, because a lease keeps it from being opened; -1 without a lease. *name: of
 * that file. */
int prestart_held_file(const char **name);

/* Resume it with `words` and these limits, once every file of the command is written. Returns its pid, or -1 when that fails;
 * then it is gone. */
pid_t prestart_release(const char **words, const struct limits *limits);

#endif
