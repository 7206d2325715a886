/* Creation of a sandbox by the process that becomes its PID 1. */
#ifndef FIREBOX_SANDBOX_H
#define FIREBOX_SANDBOX_H

#include "message.h"
#include "steps.h"

/* A seccomp program. */
struct filter {
    const void *instructions;
    uint32_t bytes;
};

/* Settings for all sandboxes of a launcher. filter: needs a listener; fallback: does not. drop_groups: false where the kernel
 * forbids setgroups(2). */
struct launcher_settings {
    struct filter filter, fallback;
    bool drop_groups;
};

/* One sandbox. */
struct sandbox {
    const struct make *make;
    const struct step *steps;
    struct text text;
    int link;      /* to the server */
    int template;  /* to restore the prestarted program from, or -1 */
    int restorer;  /* a copy of the executable part of the template, or -1 */
    struct filter filter; /* replaces the launcher's, without a listener; may be empty */
    bool joined;   /* whether clone3(2) put it into its cgroup */
    int oom_score; /* oom_score_adj of PID 1 */
    struct step_context context;
};

/* Create the sandbox and serve its one command. The caller is a child of the launcher in new namespaces. */
_Noreturn void become_sandbox(const struct launcher_settings *settings, struct sandbox *sandbox);

#endif
