/* The threads of a traced interpreter. */
#ifndef FIREBOX_CAPTURE_THREADS_H
#define FIREBOX_CAPTURE_THREADS_H

#include "template.h"

/* Find all threads; the first is the main thread, which has stopped. Stop the others. Each must wait in a system call that can be
 * restarted, which it will do. From here on `traced` points into head->thread. */
void stop_threads(struct template_head *head);

/* Save the kernel's settings of `traced`, which has stopped. scratch: an address in the interpreter that may be overwritten. */
void capture_thread_settings(uint64_t scratch);

#endif
