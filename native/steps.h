/* Execution of the steps of plans, which src/firebox/sandbox/plan/steps.py defines. */
#ifndef FIREBOX_STEPS_H
#define FIREBOX_STEPS_H

#include <sys/types.h>

#include "message.h"

enum { CGROUPS = 4, METERS = 16 };

/* What steps refer to. */
struct step_context {
    uid_t uid;          /* of the sandbox */
    int cgroups[CGROUPS]; /* folders of the sandbox's cgroups */
    int cgroup_count;
    int proc; /* a descriptor of the launcher's procfs, or -1 */
    int meters[METERS];
    int meter_count;
};

/* Run one step. */
int run_step(const struct step *step, const struct text *text, struct step_context *context);

/* Run steps in order. Returns the number of successful ones; it stops at the first failure. */
uint32_t run_steps(const struct step *steps, uint32_t count, const struct text *text, struct step_context *context);

#endif
