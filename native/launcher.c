/* The launcher creates sandboxes. It has one thread, holds the privileges, and never reads user data.
 *
 * The server starts it with a SOCK_SEQPACKET link as descriptor 3. As root it stays root; an unprivileged user first becomes
 * root of a user namespace. It enters a minimal root with the host at /host, and then handles messages: for Prepare it runs
 * steps itself, for Make it clones a process that becomes PID 1 of a sandbox (see sandbox.c). The server and PID 1 communicate
 * directly.
 *
 * The launcher exits when the link is closed. PID 1 of every sandbox dies with it. It removes the cgroups at exit; otherwise the
 * next server does. */
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "identity.h"
#include "kernel.h"
#include "message.h"
#include "sandbox.h"

enum { LINK = 3, SIGNALS = 64, CHILDREN = 4096, PATH_ROOM = 4096, REMOVE_AGAIN_MS = 20, LAST_ATTEMPTS = 500, LAST_PAUSE_US = 2000 };

#define HOST "/host"
#define NAMESPACES (CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS)

/* A sandbox in the launcher. An entry with the number 0 is free. */
struct child {
    uint32_t number;
    uint32_t uid_index;
    pid_t pid;     /* 0: dead */
    bool released; /* the server no longer needs its meters */
    bool ended;    /* only its cgroups remain */
};

static struct child children[CHILDREN];
static uint32_t children_used; /* later entries were never used */

static struct launcher_settings settings;
static uid_t first_uid;
static uint32_t uid_count;
static bool uid_taken[CHILDREN];

static struct {
    char path[PATH_ROOM];
    int folder;
} cgroups[CGROUPS];
static int cgroup_count;
static bool into_cgroup;
static bool cgroups_remain; /* some could not be removed yet */
static bool link_is_broken;  /* the server missed a message that it waits for */

static struct child *find_child(uint32_t number)
{
    for (uint32_t index = 0; index < children_used; ++index)
        if (children[index].number == number)
            return &children[index];
    return NULL;
}

static struct child *new_child(uint32_t number)
{
    struct child *child = find_child(0);
    if (child == NULL && children_used < CHILDREN)
        child = &children[children_used++];
    if (child != NULL)
        *child = (struct child){.number = number};
    else
        fail("sandboxes", EAGAIN); /* too many */
    return child;
}

/* Choose an unused uid. If there is only one, all sandboxes share it. */
static int allocate_uid(uint32_t *index)
{
    for (*index = 0; *index < uid_count; ++*index) {
        if (!uid_taken[*index] || uid_count == 1) {
            uid_taken[*index] = true;
            return 0;
        }
    }
    return fail("uid", EAGAIN);
}

/* Format the name of a sandbox's cgroup. */
static const char *cgroup_name(uint32_t number, char name[static 32])
{
    char digits[21];
    return strcat(strcpy(name, "sandbox-"), decimal(number, digits));
}

/* Remove the cgroups of a sandbox. Returns whether all are gone; the kernel may need a moment after the last process. */
static bool remove_cgroups(uint32_t number)
{
    char name[32];
    bool gone = true;
    cgroup_name(number, name);
    for (int index = 0; index < cgroup_count; ++index)
        if (unlinkat(cgroups[index].folder, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
            gone = false;
    return gone;
}

static int make_cgroups(struct sandbox *sandbox)
{
    char name[32];
    cgroup_name(sandbox->make->number, name);
    for (int index = 0; index < cgroup_count; ++index) {
        if (check("mkdir cgroup", mkdirat(cgroups[index].folder, name, 0755)) < 0)
            return -1;
        int folder = open_at(cgroups[index].folder, name, O_PATH | O_DIRECTORY, 0);
        if (folder < 0)
            return -1;
        sandbox->context.cgroups[sandbox->context.cgroup_count++] = folder;
    }
    return 0;
}

/* Fork into new namespaces and, if possible, into the cgroup. Source: clone(2), clone3. */
static pid_t clone_process(struct sandbox *sandbox)
{
    struct clone_args arguments = {.flags = NAMESPACES, .exit_signal = SIGCHLD};
    sandbox->joined = into_cgroup;
    if (into_cgroup) {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = (unsigned)sandbox->context.cgroups[0];
    }
    long pid = syscall(SYS_clone3, &arguments, sizeof arguments);
    if (pid < 0) { /* older container engines refuse clone3 with ENOSYS or EPERM */
        sandbox->joined = false;
        pid = syscall(SYS_clone, (unsigned long)(NAMESPACES | SIGCHLD), 0, 0, 0, 0);
    }
    return (pid_t)check("clone", pid);
}

/* Start a sandbox. It reports on its link when it is ready. */
static int start_sandbox(struct sandbox *sandbox, struct child *child)
{
    if (allocate_uid(&child->uid_index) < 0)
        return -1;
    sandbox->context.uid = first_uid + child->uid_index;
    pid_t pid = make_cgroups(sandbox) < 0 ? -1 : clone_process(sandbox);
    if (pid == 0)
        become_sandbox(&settings, sandbox);
    for (int index = 0; index < sandbox->context.cgroup_count; ++index)
        close(sandbox->context.cgroups[index]);
    if (pid > 0) {
        child->pid = pid;
        return 0;
    }
    uid_taken[child->uid_index] = false;
    return -1;
}

static void make_sandbox(struct message *message)
{
    if (message->descriptor_count != 1 && message->descriptor_count != 2)
        return;
    struct sandbox sandbox = {.link = message->descriptors[0], .template = -1, .restorer = -1, .context = {.proc = -1}};
    if (message->descriptor_count == 2)
        sandbox.template = message->descriptors[1];
    sandbox.make = take(message, sizeof *sandbox.make);
    if (sandbox.make == NULL)
        return;
    uint64_t steps = (uint64_t)sandbox.make->cgroup_steps + sandbox.make->tree_steps + sandbox.make->limit_steps;
    sandbox.steps = take(message, steps * sizeof *sandbox.steps);
    bool whole = sandbox.steps != NULL && take_text(message, sandbox.make->text_bytes, &sandbox.text) == 0;
    if (whole && sandbox.make->filter_bytes > 0) {
        sandbox.filter = (struct filter){take(message, sandbox.make->filter_bytes), sandbox.make->filter_bytes};
        whole = sandbox.filter.instructions != NULL;
    }
    struct child *child = whole && sandbox.make->number != 0 ? new_child(sandbox.make->number) : NULL;
    if (child == NULL || start_sandbox(&sandbox, child) < 0) {
        send_failed(sandbox.link, sandbox.make->number, PHASE_CLONE, 0);
        if (child != NULL && remove_cgroups(child->number))
            child->number = 0;
        else if (child != NULL)
            cgroups_remain = child->ended = true;
    }
}

static int prepare(struct message *message)
{
    const struct prepare *request = take(message, sizeof *request);
    struct step_context context = {.proc = -1};
    struct text text;
    if (request == NULL)
        return -1;
    const struct step *steps = take(message, (uint64_t)request->steps * sizeof *steps);
    if (steps == NULL || take_text(message, request->text_bytes, &text) < 0)
        return -1;
    uint32_t taken = run_steps(steps, request->steps, &text, &context);
    if (taken < request->steps)
        return send_failed(LINK, request->number, PHASE_PREPARE, taken);
    struct prepared done = {KIND_PREPARED, request->number};
    return send_message(LINK, &done, sizeof done, "", NULL, 0);
}

static void report_ended(uint32_t number)
{
    struct ended message = {KIND_ENDED, number};
    if (send_message(LINK, &message, sizeof message, "", NULL, 0) < 0)
        link_is_broken = true;
}

/* Clean up a sandbox that is dead and released. */
static void end_child(struct child *child)
{
    uint32_t number = child->number;
    bool is_new = !child->ended;
    child->ended = true;
    if (is_new)
        uid_taken[child->uid_index] = false; /* only once: another sandbox may have it later */
    if (remove_cgroups(number))
        child->number = 0;
    else
        cgroups_remain = true;
    if (is_new)
        report_ended(number);
}

static void release(uint32_t number)
{
    struct child *child = find_child(number);
    if (child == NULL || child->ended) {
        report_ended(number);
        return;
    }
    child->released = true;
    if (child->pid > 0)
        kill(child->pid, SIGKILL);
    else
        end_child(child);
}

/* Handle a message. Returns -1 for an invalid one, which the server never sends. */
static int handle_message(struct message *message)
{
    const struct end *about = (const void *)message->data; /* as `struct kill` */
    struct child *child;
    switch (message_kind(message)) {
    case KIND_MAKE:
        make_sandbox(message);
        return 0;
    case KIND_PREPARE:
        return prepare(message);
    case KIND_KILL:
        child = message->bytes == sizeof *about ? find_child(about->number) : NULL;
        if (child != NULL && child->pid > 0)
            kill(child->pid, SIGKILL);
        return 0;
    case KIND_END:
        if (message->bytes == sizeof *about)
            release(about->number);
        return 0;
    default:
        return fail("message", EBADMSG);
    }
}

static void reap(void)
{
    pid_t pid;
    while ((pid = waitpid(-1, NULL, WNOHANG)) > 0) {
        for (uint32_t index = 0; index < children_used; ++index) {
            struct child *child = &children[index];
            if (child->number == 0 || child->pid != pid)
                continue;
            child->pid = 0;
            if (child->released)
                end_child(child);
        }
    }
}

static void remove_remaining_cgroups(void)
{
    cgroups_remain = false;
    for (uint32_t index = 0; index < children_used; ++index)
        if (children[index].number != 0 && children[index].ended)
            end_child(&children[index]);
}

/* Handle messages until the link is closed. */
static void serve(int children_ended)
{
    struct pollfd polled[] = {{.fd = LINK, .events = POLLIN}, {.fd = children_ended, .events = POLLIN}};
    while (!link_is_broken) {
        poll(polled, 2, cgroups_remain ? REMOVE_AGAIN_MS : -1);
        if (polled[1].revents != 0) {
            struct signalfd_siginfo information;
            if (read(children_ended, &information, sizeof information) > 0)
                reap();
        }
        if (cgroups_remain)
            remove_remaining_cgroups();
        if (polled[0].revents == 0)
            continue;
        struct message message;
        if (receive_message(LINK, &message) < 0 || message.bytes == 0)
            return;
        int done = handle_message(&message);
        close_descriptors(&message);
        if (done < 0)
            return;
    }
}

/* Kill and reap every sandbox and remove all cgroups. */
static void shut_down(void)
{
    for (uint32_t index = 0; index < children_used; ++index)
        if (children[index].number != 0 && children[index].pid > 0)
            kill(children[index].pid, SIGKILL);
    while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
        ;
    bool left = true;
    for (int attempt = 0; left && attempt < LAST_ATTEMPTS; ++attempt) {
        left = false;
        for (uint32_t index = 0; index < children_used; ++index)
            if (children[index].number != 0 && !remove_cgroups(children[index].number))
                left = true;
        if (left)
            usleep(LAST_PAUSE_US);
    }
    for (int index = 0; index < cgroup_count; ++index)
        rmdir(cgroups[index].path);
}

static int open_cgroups(const struct configure *request, const struct text *text, uint32_t offset)
{
    const char **folders = words_at(text, &offset, request->cgroups);
    if (folders == NULL || request->cgroups > CGROUPS)
        return fail("cgroups", EINVAL);
    for (uint32_t index = 0; index < request->cgroups; ++index) {
        if (strlen(folders[index]) + sizeof HOST > PATH_ROOM)
            return fail("cgroups", ENAMETOOLONG);
        strcat(strcpy(cgroups[index].path, HOST), folders[index]);
        cgroups[index].folder = open_at(AT_FDCWD, cgroups[index].path, O_PATH | O_DIRECTORY, 0);
        if (cgroups[index].folder < 0)
            return -1;
        ++cgroup_count;
    }
    into_cgroup = request->cgroups == 1 && (request->flags & CONFIGURE_FLAG_INTO_CGROUP);
    return 0;
}

static int keep_filter(struct message *message, uint32_t bytes, struct filter *filter)
{
    const void *program = take(message, bytes);
    void *kept = program == NULL ? NULL : allocate(bytes);
    if (kept == NULL)
        return -1;
    memcpy(kept, program, bytes);
    *filter = (struct filter){kept, bytes};
    return 0;
}

/* Apply the settings. *phase: what failed. */
static int configure(struct message *message, enum phase *phase)
{
    const struct configure *request = take(message, sizeof *request);
    struct text text;
    *phase = PHASE_MESSAGE;
    if (request == NULL || request->kind != KIND_CONFIGURE || request->version != PROTOCOL_VERSION)
        return fail("version", EPROTO);
    if (take_text(message, request->text_bytes, &text) < 0 || request->uid_count == 0 || request->uid_count > CHILDREN)
        return fail("message", EBADMSG);
    if (keep_filter(message, request->filter_bytes, &settings.filter) < 0 ||
        keep_filter(message, request->fallback_bytes, &settings.fallback) < 0)
        return -1;
    uint32_t offset = 0;
    const char **map_uids = words_at(&text, &offset, request->uid_map_words);
    const char **map_gids = map_uids == NULL ? NULL : words_at(&text, &offset, request->gid_map_words);
    if (map_gids == NULL)
        return -1;
    *phase = PHASE_IDENTITY;
    bool is_root = geteuid() == 0;
    int own_uids = enter_namespaces(map_uids, map_gids);
    if (own_uids < 0)
        return -1;
    first_uid = own_uids ? request->uid_first : 0;
    uid_count = own_uids ? request->uid_count : 1;
    settings.drop_groups = is_root || own_uids;
    *phase = PHASE_LEAN_ROOT;
    if (enter_lean_root() < 0)
        return -1;
    *phase = PHASE_CGROUP;
    return open_cgroups(request, &text, offset);
}

/* Switch to another user at the start; only for root. Source: credentials(7). */
static int switch_user(const char *ids)
{
    uid_t uid = (uid_t)parse_decimal(&ids);
    gid_t gid = *ids == ':' ? (++ids, (gid_t)parse_decimal(&ids)) : 0;
    if (uid == 0 || gid == 0)
        return fail("become", EINVAL);
    if (become_user(uid, gid) < 0)
        return -1;
    return (int)check("prctl", prctl(PR_SET_DUMPABLE, 1)); /* else /proc/self belongs to root, and we cannot write our id maps */
}

int main(int argc, char **argv)
{
    struct message message;
    enum phase phase = PHASE_IDENTITY;
    sigset_t child_ended;
    syscall(SYS_close_range, LINK + 1, ~0U, 0);
    fcntl(LINK, F_SETFD, FD_CLOEXEC);
    sigemptyset(&child_ended);
    sigaddset(&child_ended, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child_ended, NULL);
    for (int number = 1; number <= SIGNALS; ++number)
        signal(number, SIG_DFL); /* the server may have inherited ignored signals, as from nohup(1) */
    signal(SIGINT, SIG_IGN); /* Ctrl-C is for the server, which closes the link */
    umask(022);
    if (chdir("/") < 0)
        return 1;
    int children_ended = (int)check("signalfd", signalfd(-1, &child_ended, SFD_CLOEXEC | SFD_NONBLOCK));
    int done = children_ended < 0 ? -1 : argc == 2 ? switch_user(argv[1]) : 0;
    if (done == 0 && (receive_message(LINK, &message) < 0 || message.bytes == 0))
        return 0; /* the server is gone */
    if (done == 0)
        done = configure(&message, &phase); /* its descriptors stay open on purpose */
    if (done < 0) {
        send_failed(LINK, 0, phase, 0);
        while (receive_message(LINK, &message) == 0 && message.bytes > 0)
            ; /* exiting with unread messages would discard the one just sent */
        return 1;
    }
    struct configured configured = {KIND_CONFIGURED, uid_count};
    if (send_message(LINK, &configured, sizeof configured, "", NULL, 0) == 0)
        serve(children_ended);
    shut_down();
    return 0;
}
