/* Resource use of System V queues, semaphores and segments in this IPC namespace. Source: sysvipc(7).
 *
 * Each function returns UINT64_MAX when it cannot be read. */
#ifndef FIREBOX_SYSTEM_V_H
#define FIREBOX_SYSTEM_V_H

#include <stdint.h>

/* Return the number of message queues, and of semaphore sets. */
uint64_t system_v_queues(void);
uint64_t system_v_semaphore_sets(void);

/* Return the total size of the shared memory segments. */
uint64_t system_v_segments_bytes(void);

/* Return the resident and swapped size of the segments. */
uint64_t system_v_resident_bytes(void);

/* Return the kernel memory of messages and semaphores. */
uint64_t system_v_kernel_bytes(void);

#endif
