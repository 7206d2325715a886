/* What PID 1 of a sandbox does once it has given everything up. */
#ifndef FIREBOX_INIT_H
#define FIREBOX_INIT_H

#include "sandbox.h"

/* Report that the sandbox is ready, take one command, run it, reap, report, hand files back, end. Returns only when it cannot
 * begin. */
void serve_command(const struct sandbox *sandbox, const struct ready *ready);

#endif
