/* System calls that PID 1 decides, because what they take must be counted and nobody else counts it. */
#ifndef FIREBOX_SUPERVISOR_H
#define FIREBOX_SUPERVISOR_H

#include <stdint.h>

/* Begin. listener: of seccomp(2), or -1 where there is none; then nothing below does anything. */
void supervisor_start(int listener);

/* The listener, to be polled, or -1. */
int supervisor_descriptor(void);

/* Bound shared anonymous memory and System V segments; 0 means no bound. */
void supervisor_limit(uint64_t bytes);

/* Answer one call. */
void supervisor_answer(void);

/* The most that shared anonymous mappings can hold, and the same once those that have gone are forgotten. */
uint64_t supervisor_shared_bytes(void);
void supervisor_forget_unmapped(void);

#endif
