/* PID 1 of a sandbox: it creates the sandbox in phases, runs one command, and exits.
 *
 * It is a fork of the launcher. While it creates the sandbox it holds the launcher's privileges and reads no user data. The last
 * phases drop all privileges permanently, and only then does it receive a command. So the process that writes the command's files
 * and collects the results has no more privileges than the program itself.
 *
 * PID 1 shares its uid with hostile code, which cannot reach it: it is not dumpable (no ptrace, no /proc/1/mem, no /proc/1/fd),
 * signals from inside its PID namespace have no effect, and seccomp refuses the calls that read other processes. */
#include "sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/if.h>
#include <linux/seccomp.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "files.h"
#include "init.h"
#include "kernel.h"
#include "supervisor.h"
#include "template.h"

enum { LINK = 3, FIRST_CGROUP = 100, TEMPLATE = FIRST_CGROUP + CGROUPS, OOM_SCORE = 500, CAPABILITIES = 64 };

#define HOST_PROC "/host/proc"
#define WORK "/box"

/* NOROOT, NO_SETUID_FIXUP and NO_CAP_AMBIENT_RAISE on, KEEP_CAPS off, each with its lock. */
#define SECBITS_ALL_LOCKED 0xEF

/* The current phase, and the step in it that failed. */
static enum phase phase;
static uint32_t failed_step;

/* Close the launcher's descriptors. The link becomes number 3, the cgroup folders start at `FIRST_CGROUP`, followed by the
 * template. */
static int close_launcher_descriptors(struct sandbox *sandbox)
{
    for (int index = 0; index < sandbox->context.cgroup_count; ++index) {
        int *folder = &sandbox->context.cgroups[index];
        *folder = (int)check("fcntl", fcntl(*folder, F_DUPFD_CLOEXEC, FIRST_CGROUP));
        if (*folder < 0)
            return -1;
    }
    if (sandbox->template >= 0) {
        if (check("dup", dup3(sandbox->template, TEMPLATE, O_CLOEXEC)) < 0)
            return -1;
        sandbox->template = TEMPLATE;
    }
    if (check("dup", dup3(sandbox->link, LINK, O_CLOEXEC)) < 0 || check("dup", dup2(0, 2)) < 0 || check("dup", dup2(0, 1)) < 0)
        return -1;
    sandbox->link = LINK;
    syscall(SYS_close_range, LINK + 1, FIRST_CGROUP - 1, 0);
    return (int)check("close_range", syscall(SYS_close_range, sandbox->template >= 0 ? TEMPLATE + 1 : TEMPLATE, ~0U, 0));
}

/* Run the steps of a phase. */
static int run_phase(struct sandbox *sandbox, uint32_t first, uint32_t count)
{
    failed_step = run_steps(sandbox->steps + first, count, &sandbox->text, &sandbox->context);
    return failed_step < count ? -1 : 0;
}

/* Copy the executable part of a template into a file of this sandbox; see TEMPLATE_CONTENTS. The file has the interpreter's name,
 * which /proc/self/exe shows. It is in a detached file system, which bounds what programs can attach to it, such as extended
 * attributes. Returns its descriptor, or -1: then the program is started normally. */
static int copy_restorer(int template)
{
    struct template_head head;
    char name[PATH_MAX] = HOST_PROC; /* an existing folder that is not needed meanwhile */
    const char *about;
    off_t from = 0;
    int copy = -1;
    if (pread(template, &head, sizeof head, TEMPLATE_AT) != (long)sizeof head || head.tables_bytes > TEMPLATE_TABLES_BYTES)
        return -1;
    off_t bytes = TEMPLATE_AT + (off_t)head.tables_bytes;
    off_t text = TEMPLATE_AT + (off_t)(sizeof head + head.mappings * sizeof(struct template_mapping) +
                                       head.pieces * sizeof(struct template_piece));
    if (pread(template, name + strlen(HOST_PROC), sizeof name - sizeof HOST_PROC, text + head.interpreter) < 2 ||
        name[strlen(HOST_PROC)] != '/' || !stays_inside(name + strlen(HOST_PROC "/")) || /* the template is untrusted */
        mount("restorer", HOST_PROC, "tmpfs", MS_NOSUID | MS_NODEV, "size=2m,nr_inodes=64,mode=755") < 0)
        return -1;
    int file = make_folders_above(name, &about) < 0 ? -1 : open_at(AT_FDCWD, name, O_WRONLY | O_CREAT | O_EXCL, 0555);
    while (file >= 0 && from < bytes && sendfile(file, template, &from, (size_t)(bytes - from)) > 0)
        ;
    if (file >= 0)
        close(file);
    if (from == bytes)
        copy = open_at(AT_FDCWD, name, O_RDONLY, 0);
    umount2(HOST_PROC, MNT_DETACH);
    return copy;
}

/* Join the cgroup, limit it and open its meters. */
static int enter_cgroups(struct sandbox *sandbox)
{
    struct step_context *context = &sandbox->context;
    phase = PHASE_CGROUP;
    failed_step = sandbox->make->cgroup_steps; /* not a step */
    for (int index = 0; !sandbox->joined && index < context->cgroup_count; ++index)
        if (write_file(context->cgroups[index], "cgroup.procs", "0") < 0)
            return -1;
    if (run_phase(sandbox, 0, sandbox->make->cgroup_steps) < 0)
        return -1;
    for (int index = 0; index < context->cgroup_count; ++index)
        close(context->cgroups[index]);
    context->cgroup_count = 0;
    return 0;
}

/* Bring `lo` up. Source: netdevice(7). */
static int bring_up_loopback(void)
{
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    int control = (int)check("socket", socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (control < 0)
        return -1;
    long done = check("SIOCSIFFLAGS", ioctl(control, SIOCSIFFLAGS, &request));
    close(control);
    return (int)done;
}

static int prepare_namespaces(struct sandbox *sandbox)
{
    phase = PHASE_NAMESPACES;
    /* New mounts of the host must not appear here. */
    if (check("mount", mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL)) < 0 || check("setsid", setsid()) < 0)
        return -1;
    signal(SIGINT, SIG_DFL);
    if (check("unshare", unshare(CLONE_NEWCGROUP)) < 0 || check("sethostname", sethostname("firebox", 7)) < 0 ||
        bring_up_loopback() < 0)
        return -1;
    /* Keep the launcher's procfs: the sandbox's own may be read-only. */
    sandbox->context.proc = open_at(AT_FDCWD, HOST_PROC, O_PATH | O_DIRECTORY, 0);
    return sandbox->context.proc < 0 ? -1 : 0;
}

/* Make the kernel kill sandboxes first when the host runs out of memory. Returns the descriptor of the file, which stays open:
 * it will belong to root later, and the program gets a higher score. */
static int raise_oom_score(int proc)
{
    char score[21];
    int file = open_at(proc, "self/oom_score_adj", O_RDWR, 0);
    if (file < 0)
        return -1;
    long length = check("read", pread(file, score, sizeof score - 1, 0));
    if (length < 0)
        return -1;
    score[length] = '\0';
    const char *digits = score;
    if (score[0] == '-' || parse_decimal(&digits) < OOM_SCORE) /* lowering it needs a capability */
        if (check("oom_score_adj", pwrite(file, "500", 3, 0)) < 0)
            return -1;
    return file;
}

static int become_own_user(const struct launcher_settings *settings, struct sandbox *sandbox)
{
    uid_t uid = sandbox->context.uid;
    phase = PHASE_OWN_USER;
    sandbox->oom_score = raise_oom_score(sandbox->context.proc);
    if (sandbox->oom_score < 0)
        return -1;
    if (settings->drop_groups && become_user(uid, uid) < 0)
        return -1;
    if (!(sandbox->make->flags & MAKE_FLAG_OWN_USER_NAMESPACE))
        return 0;
    /* Else /proc/self belongs to root, and we cannot write the id maps. */
    if (check("prctl", prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)) < 0 || check("unshare", unshare(CLONE_NEWUSER)) < 0)
        return -1;
    return map_ids(sandbox->context.proc, sandbox->make->inside_uid, uid, uid);
}

/* Some limits need the capabilities in the user namespace. */
static int set_limits(struct sandbox *sandbox)
{
    const struct make *make = sandbox->make;
    struct rlimit stack;
    phase = PHASE_LIMITS;
    if (run_phase(sandbox, make->cgroup_steps + make->tree_steps, make->limit_steps) < 0)
        return -1;
    failed_step = make->limit_steps;
    close(sandbox->context.proc);
    /* For the memory layout of a prestarted program. The command sets its own limit later. */
    if (check("getrlimit", getrlimit(RLIMIT_STACK, &stack)) < 0)
        return -1;
    stack.rlim_cur = make->stack_bytes < stack.rlim_max ? make->stack_bytes : stack.rlim_max;
    if (check("setrlimit", setrlimit(RLIMIT_STACK, &stack)) < 0)
        return -1;
    return (int)check("chdir", chdir(WORK));
}

/* Empty every capability set and, in a user namespace of our own, lock the securebits. Source: capabilities(7). */
static int drop_capabilities(bool own_user_namespace)
{
    phase = PHASE_CAPABILITIES;
    if (own_user_namespace) {
        if (check("securebits", prctl(PR_SET_SECUREBITS, SECBITS_ALL_LOCKED, 0, 0, 0)) < 0)
            return -1;
        for (unsigned long capability = 0; capability < CAPABILITIES; ++capability) {
            if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0)
                continue;
            if (errno != EINVAL) /* EINVAL: beyond the last one of this kernel */
                return fail("capbset", errno);
            break;
        }
        if (check("ambient", prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)) < 0)
            return -1;
    }
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3];
    memset(none, 0, sizeof none);
    if (check("capset", syscall(SYS_capset, &header, none)) < 0 ||
        check("no_new_privs", prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) < 0 ||
        check("dumpable", prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)) < 0)
        return -1;
    return (int)check("pdeathsig", prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0));
}

static long load(const struct filter *filter, unsigned flags)
{
    struct sock_fprog program = {
        (unsigned short)(filter->bytes / sizeof(struct sock_filter)), (struct sock_filter *)(uintptr_t)filter->instructions};
    return check("seccomp", syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program));
}

/* Load the seccomp filter. If this kernel or an outer filter allows no listener, load the one that refuses the supervised
 * calls. */
static int load_filter(const struct launcher_settings *settings, const struct filter *own)
{
    phase = PHASE_FILTER;
    if (own->bytes > 0) {
        supervisor_start(-1);
        return (int)load(own, 0);
    }
    int listener = (int)load(&settings->filter, SECCOMP_FILTER_FLAG_NEW_LISTENER);
    if (listener < 0 && failure.number != EBUSY && failure.number != EINVAL)
        return -1;
    if (listener < 0 && load(&settings->fallback, 0) < 0)
        return -1;
    supervisor_start(listener);
    return 0;
}

/* Return the pid of this process in the launcher's PID namespace. */
static uint32_t pid_outside(int proc)
{
    char target[21];
    const char *digits = target;
    long length = readlinkat(proc, "self", target, sizeof target - 1);
    target[length < 0 ? 0 : length] = '\0';
    return (uint32_t)parse_decimal(&digits);
}

static int create(const struct launcher_settings *settings, struct sandbox *sandbox, struct ready *ready)
{
    const struct make *wanted = sandbox->make;
    if (close_launcher_descriptors(sandbox) < 0 || enter_cgroups(sandbox) < 0 || prepare_namespaces(sandbox) < 0)
        return -1;
    if (sandbox->template >= 0 && (sandbox->restorer = copy_restorer(sandbox->template)) < 0) {
        close(sandbox->template);
        sandbox->template = -1;
    }
    *ready = (struct ready){KIND_READY, pid_outside(sandbox->context.proc)};
    phase = PHASE_TREE;
    if (run_phase(sandbox, wanted->cgroup_steps, wanted->tree_steps) < 0 || become_own_user(settings, sandbox) < 0 ||
        set_limits(sandbox) < 0 || drop_capabilities(wanted->flags & MAKE_FLAG_OWN_USER_NAMESPACE) < 0)
        return -1;
    /* Templates need programs without address randomization. The filter only allows to switch it on again. A container engine may
     * refuse to switch it off: then there are no templates. */
    if (sandbox->template >= 0 || sandbox->filter.bytes > 0)
        personality(ADDR_NO_RANDOMIZE);
    return load_filter(settings, &sandbox->filter);
}

_Noreturn void become_sandbox(const struct launcher_settings *settings, struct sandbox *sandbox)
{
    struct ready ready;
    phase = PHASE_CLONE;
    if (create(settings, sandbox, &ready) == 0) {
        phase = PHASE_SERVE;
        serve_command(sandbox, &ready);
    }
    send_failed(sandbox->link, sandbox->make->number, phase, failed_step);
    _exit(2);
}
