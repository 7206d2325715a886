/* The threads of an interpreter that is captured. */
#ifndef FIREBOX_CAPTURE_THREADS_H
#define FIREBOX_CAPTURE_THREADS_H

#include "template.h"

/* Find all threads, the main one first, which has stopped. Stop the others: each must wait in a system call that it can make
 * again, and that is what it will do. Everything that `traced` may be is in head->thread from here on. */
void stop_threads(struct template_head *head);

/* Keep what `traced`, which has stopped, has told the kernel about itself. scratch: an address where answers may be written. */
void capture_thread_settings(uint64_t scratch);

#endif
