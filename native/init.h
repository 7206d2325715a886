/* PID 1 of a sandbox after it has dropped its privileges. */
#ifndef FIREBOX_INIT_H
#define FIREBOX_INIT_H

#include "sandbox.h"

/* Report that the sandbox is ready, receive one command, run it, report its exit, return files, and exit. Returns only when it
 * cannot start. */
void serve_command(const struct sandbox *sandbox, const struct ready *ready);

#endif
