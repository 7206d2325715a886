/* What the System V queues, semaphores and segments of this IPC namespace hold. Source: sysvipc(7).
 *
 * Each function returns UINT64_MAX when the kernel does not tell. */
#ifndef FIREBOX_SYSTEM_V_H
#define FIREBOX_SYSTEM_V_H

#include <stdint.h>

/* Count the message queues, and the sets of semaphores. */
uint64_t system_v_queues(void);
uint64_t system_v_semaphore_sets(void);

/* Add up the sizes of the segments of shared memory, touched or not. */
uint64_t system_v_segments_bytes(void);

/* Add up what is in the segments. */
uint64_t system_v_resident_bytes(void);

/* Add up messages and semaphores. */
uint64_t system_v_kernel_bytes(void);

#endif
