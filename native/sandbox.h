/* The making of a sandbox, by the process that becomes its PID 1. */
#ifndef FIREBOX_SANDBOX_H
#define FIREBOX_SANDBOX_H

#include "message.h"
#include "steps.h"

/* A seccomp program. */
struct filter {
    const void *instructions;
    uint32_t bytes;
};

/* What is the same for all sandboxes of a launcher. filter needs a listener; fallback does without. drop_groups: 0 where the
 * kernel forbids it. */
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
    int template;  /* from which a prestarted program is restored, or -1 */
    int restorer;  /* what restores it, a copy of the beginning of the template, or -1 */
    struct filter filter; /* of its own, which needs no listener; empty: that of the kind */
    bool joined;   /* whether it was created in its cgroups */
    int oom_score; /* oom_score_adj of PID 1 */
    struct step_context context;
};

/* Make the sandbox and serve its one command. The caller is a child of the launcher, in new namespaces. */
_Noreturn void become_sandbox(const struct launcher_settings *settings, struct sandbox *sandbox);

#endif
