/* Resource use of a sandbox without a cgroup, sampled by PID 1 every few milliseconds. */
#ifndef FIREBOX_SAMPLING_H
#define FIREBOX_SAMPLING_H

#include <stdint.h>

/* Set the limits for all processes but PID 1; 0 means unlimited. used_before_us: CPU time that does not count. open_files: the
 * program's limit. */
void sampling_start(uint64_t memory_bytes, uint64_t cpu_ms, int64_t used_before_us, uint64_t open_files);

/* Measure the memory and CPU time of all processes. */
void sample(void);

/* Return the exceeded limit, an `enum exceeded`, and the peak memory use seen. */
uint32_t sampling_exceeded(void);
uint64_t sampling_peak_bytes(void);

#endif
