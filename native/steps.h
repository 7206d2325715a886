/* The steps of plans. What a sandbox is made of is decided elsewhere (src/firebox/sandbox/plan/steps.py); here it is done. */
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
    int proc; /* a folder: the procfs of the launcher, or -1 */
    int meters[METERS];
    int meter_count;
};

/* Take one step. */
int run_step(const struct step *step, const struct text *text, struct step_context *context);

/* Take steps in order. Returns how many were taken; fewer than there are when one has failed. */
uint32_t run_steps(const struct step *steps, uint32_t count, const struct text *text, struct step_context *context);

#endif
