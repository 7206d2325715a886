/* ptrace(2) helpers for a capture. They act on one thread at a time, `traced`. Any failure ends the tracer and the
 * interpreter. */
#ifndef FIREBOX_TRACING_H
#define FIREBOX_TRACING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "kernel.h"
#include "template.h"

extern pid_t interpreter;
extern struct template_thread *traced;

/* Report why there is no template, and exit, which kills the interpreter. */
_Noreturn void die(const char *why);

/* Die with `errno` unless `done`. */
void require(const char *what, bool done);

/* Call ptrace(2). */
void trace(const char *name, long request, uintptr_t address, void *data);

/* Start tracing the thread. */
void seize(void);

/* Stop the thread. */
void stop(void);

/* Resume the thread until the entry or exit of a system call. */
void run_to_next_stop(void);

/* Save the registers of a thread that has stopped in a system call, as they were before that call. */
void capture_registers(void);

/* Make a system call in the thread, whose registers are preserved. Returns its result. */
long remote_call(long number, uint64_t a, uint64_t b, uint64_t c, uint64_t d);

/* Make a system call in the thread that writes to the address `at`, and read the result from there. */
void remote_query(const char *name, long number, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t at, void *answer,
               size_t bytes);

/* Read the interpreter's memory. open_memory: repeat it after an execve(2). try_read_remote: returns the number of bytes, or
 * -1. */
void open_memory(void);
long try_read_remote(uint64_t address, void *to, size_t bytes);
void read_remote(uint64_t address, void *to, size_t bytes);

/* Read a short file in the interpreter's /proc folder. */
void read_proc_file(const char *name, void *buffer, size_t room);

/* Call a function for each entry of a folder there. */
void each_proc_entry(const char *name, bool (*entry)(int folder, const struct linux_dirent64 *entry, void *context),
                     void *context);

#endif
