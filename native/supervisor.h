/* System calls that PID 1 decides, because their resources are counted nowhere else. */
#ifndef FIREBOX_SUPERVISOR_H
#define FIREBOX_SUPERVISOR_H

#include <stdint.h>

/* Start. listener: from seccomp(2), or -1 without one; then the other functions do nothing. */
void supervisor_start(int listener);

/* Return the listener for poll(2), or -1. */
int supervisor_descriptor(void);

/* Limit shared anonymous memory and System V segments; 0 means unlimited. */
void supervisor_limit(uint64_t bytes);

/* Answer one call. */
void supervisor_answer(void);

/* Return the maximum size of all shared anonymous mappings. forget_unmapped: drop those that are gone from it. */
uint64_t supervisor_shared_bytes(void);
void supervisor_forget_unmapped(void);

#endif
