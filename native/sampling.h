/* What a sandbox uses, where no cgroup counts it: its PID 1 looks every few milliseconds. */
#ifndef FIREBOX_SAMPLING_H
#define FIREBOX_SAMPLING_H

#include <stdint.h>

/* Hold all processes but this one, which is PID 1, against limits; 0 means none. used_before_us: CPU time that does not count.
 * open_files: the limit of the program. */
void sampling_start(uint64_t memory_bytes, uint64_t cpu_ms, int64_t used_before_us, uint64_t open_files);

/* Add up memory and CPU time of every process here. */
void sample(void);

/* A limit that was passed, an `enum exceeded`, and the most memory that was seen. */
uint32_t sampling_exceeded(void);
uint64_t sampling_peak_bytes(void);

#endif
