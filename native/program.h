/* Starting a program as PID 1. */
#ifndef FIREBOX_PROGRAM_H
#define FIREBOX_PROGRAM_H

#include <stdbool.h>

#include <sys/types.h>

#include "protocol.h"

/* The resource limits of a program. Source: getrlimit(2). */
struct limits {
    uint64_t stack_bytes, open_files, file_size_bytes, processes, cpu_s;
};

/* words, variables: end with NULL. terminal: path of the terminal, or NULL for the streams. gate: becomes PROTOCOL_GATE, or -1.
 * limits: NULL for those of PID 1. oom_score: descriptor of PID 1's oom_score_adj. template: to restore the program from, or -1;
 * restorer: to execute for that; confirm: becomes PROTOCOL_RESTORED. captured: NULL, or the file at whose opening the program is
 * captured, "" for its hook; other_pid: as in `start_capture`. */
struct program {
    const char **words, **variables;
    const int *streams;
    const char *terminal, *captured;
    bool other_pid;
    int gate, template, restorer, confirm;
    const struct limits *limits;
    int oom_score;
};

/* Compute the limits of a command, at most those of PID 1. */
void limits_of(const struct start *command, struct limits *limits);

/* Set them for a process; pid 0 is this one. */
int set_program_limits(pid_t pid, const struct limits *limits);

/* Start a program in a session of its own. Returns its pid. *about: the program or file that failed. */
pid_t start_program(const struct program *program, const char **about);

/* Kill and reap every process of the sandbox but this one, whatever they do. */
void kill_everything(void);

/* Open a terminal in the sandbox's devpts. Returns the master; *path: of the slave. */
int open_terminal(uint32_t rows, uint32_t columns, const char **path);

#endif
