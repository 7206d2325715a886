/* A program that is started before its command comes, in a sandbox that is kept ready.
 *
 * Interpreters are the real program with its real command line. Some wait at a hook that they load by themselves at their start,
 * before the main file: it reads a pipe, descriptor PROTOCOL_GATE, to its end (words, each with a NUL after it), wipes out its
 * own traces, and lets the interpreter go on. Others wait where they open the main file, without knowing: PID 1 holds a lease
 * on it. A compiler waits in a program of ours that calls it. Used once, like everything here. */
#ifndef FIREBOX_PRESTART_H
#define FIREBOX_PRESTART_H

#include <stdbool.h>

#include "program.h"

/* Start it. program: command line, environment, streams. main: a file that must be there before, "" for none. held: it waits
 * where it opens that file. */
int prestart_start(const struct program *program, const char *main, bool held);

/* Return whether there is one. One that has ended by itself is reaped, and then there is none. */
bool prestart_is_waiting(void);

/* How long it may wait before `prestart_renew`, in milliseconds; -1: for ever. */
int prestart_timeout_ms(void);

/* Start another one in its place. */
int prestart_renew(void);

/* Kill it with every process of the sandbox. */
void prestart_kill(void);

/* Return the descriptor through which its main file must be written, because it cannot be opened; -1 where there is none.
 * *name: of that file. */
int prestart_held_file(const char **name);

/* Let it go on, told `words`, with these limits. Every file of the command has been written. Returns its pid, or -1 when it
 * cannot: nothing of it is left then. */
pid_t prestart_release(const char **words, const struct limits *limits);

#endif
