/* The interpreter that is captured, as its tracer handles it: one thread at a time, `traced`. Whatever fails ends it all. */
#ifndef FIREBOX_TRACING_H
#define FIREBOX_TRACING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "template.h"

extern pid_t interpreter;
extern struct template_thread *traced;

/* Say why there will be no template, and end, and the interpreter with us. */
_Noreturn void die(const char *why);

/* Give up unless something was done, with the error number of `errno`. */
void require(const char *what, bool done);

/* Make a call of ptrace(2). */
void trace(const char *name, long request, uintptr_t address, void *data);

/* Begin to trace the thread. */
void seize(void);

/* Stop it, wherever it is. */
void stop(void);

/* Let it go on to the beginning or the end of a system call. */
void run_to_next_stop(void);

/* Keep the registers of a thread that has stopped in a system call, as they are before that. */
void capture_registers(void);

/* Have it make a system call of ours; its registers are kept. Returns what that returns. */
long remote_call(long number, uint64_t a, uint64_t b, uint64_t c, uint64_t d);

/* Make a call that writes an answer to the address which is one of its arguments, and fetch that. */
void remote_query(const char *name, long number, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t at, void *answer,
               size_t bytes);

/* Read the interpreter's memory. open_memory: again after an execve(2). try_read_remote: returns how many bytes, or -1. */
void open_memory(void);
long try_read_remote(uint64_t address, void *to, size_t bytes);
void read_remote(uint64_t address, void *to, size_t bytes);

/* Read a short file of the interpreter's /proc. */
void read_proc_file(const char *name, void *buffer, size_t room);

/* Call for each entry of a folder there. */
void each_proc_entry(const char *name, void (*entry)(int folder, const char *name, void *context), void *context);

#endif
