#include "steps.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "copy.h"
#include "image.h"
#include "kernel.h"

#ifndef SYS_mount_setattr
#define SYS_mount_setattr 442
#endif
enum { WHOLE_TREE = 0x8000 }; /* AT_RECURSIVE */

/* Create a folder with exactly this mode and owner. */
static int make_folder(const char *path, mode_t mode, uid_t uid)
{
    if (check("mkdir", mkdir(path, mode)) < 0 || check("chmod", chmod(path, mode)) < 0)
        return -1;
    return (int)check("chown", lchown(path, uid, uid));
}

/* Create a folder and its missing parents. */
static int make_folders(const char *path, mode_t mode)
{
    char part[PATH_MAX];
    size_t length = strlen(path);
    if (length >= sizeof part)
        return fail("mkdir", ENAMETOOLONG);
    for (size_t end = 1; end <= length; ++end) {
        if (end < length && path[end] != '/')
            continue;
        memcpy(part, path, end);
        part[end] = '\0';
        if (mkdir(part, mode) < 0 && errno != EEXIST)
            return fail("mkdir", errno);
    }
    return 0;
}

/* Write a file, replacing an existing one. */
static int make_file(const char *path, mode_t mode, const char *content)
{
    if (unlink(path) < 0 && errno != ENOENT)
        return fail("unlink", errno);
    int file = open_at(AT_FDCWD, path, O_WRONLY | O_CREAT | O_EXCL, mode);
    if (file < 0)
        return -1;
    int done = write_all(file, content, strlen(content));
    if (done == 0)
        done = (int)check("chmod", fchmod(file, mode));
    close(file);
    return done;
}

/* Create a symlink, replacing an existing file. */
static int make_link(const char *content, const char *path)
{
    if (unlink(path) < 0 && errno != ENOENT)
        return fail("unlink", errno);
    return (int)check("symlink", symlink(content, path));
}

static int make_node(const char *path, mode_t mode, uint64_t device)
{
    if (check("mknod", mknod(path, mode, (dev_t)device)) < 0)
        return -1;
    return (int)check("chmod", chmod(path, mode & 07777));
}

/* Set attributes of a mount and of everything below it. Source: mount_setattr(2). */
static int restrict_mount(const char *path, uint64_t attributes)
{
    uint64_t attribute[4] = {attributes, 0, 0, 0};
    long done = syscall(SYS_mount_setattr, AT_FDCWD, path, WHOLE_TREE, attribute, sizeof attribute);
    return (int)check("mount_setattr", done);
}

/* Make a folder the root and detach the old one. Source: pivot_root(2), "pivot_root(".", ".")". */
static int pivot(const char *root)
{
    if (check("chdir", chdir(root)) < 0 || check("pivot_root", syscall(SYS_pivot_root, ".", ".")) < 0)
        return -1;
    if (check("umount", umount2(".", MNT_DETACH)) < 0) /* the old root is stacked on the new one */
        return -1;
    return (int)check("chdir", chdir("/"));
}

static int unmount(const char *path)
{
    if (check("umount", umount2(path, MNT_DETACH)) < 0)
        return -1;
    return (int)check("rmdir", rmdir(path));
}

static int add_meter(struct step_context *context, int descriptor)
{
    if (descriptor < 0)
        return -1;
    if (context->meter_count == METERS)
        return fail("meter", ENOSPC);
    context->meters[context->meter_count++] = descriptor;
    return 0;
}

/* Have the kernel signal on an eventfd when a cgroup of version 1 runs out of memory. control: index of the meter for
 * memory.oom_control. Source: Linux admin-guide/cgroup-v1/memory.rst, "OOM Control". */
static int add_memory_event(struct step_context *context, int group, uint64_t control)
{
    char numbers[2][21], line[48];
    if (control >= (uint64_t)context->meter_count)
        return fail("meter", EINVAL);
    int event = (int)check("eventfd", eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (add_meter(context, event) < 0)
        return -1;
    strcpy(line, decimal((uint64_t)event, numbers[0]));
    strcat(line, " ");
    strcat(line, decimal((uint64_t)context->meters[control], numbers[1]));
    return write_file(group, "cgroup.event_control", line);
}

/* Lower a resource limit, soft and hard, to at most the current hard limit. */
static int lower_limit(uint32_t resource, uint64_t value)
{
    uint64_t hard = hard_limit((int)resource);
    return set_limit(0, (int)resource, value < hard ? value : hard);
}

/* Lower a per-user limit in the current user namespace. If /proc/sys is read-only, as in most containers, the host's limit
 * applies. */
static int lower_user_limit(int proc, const char *name, const char *value)
{
    if (write_file(proc, name, value) == 0)
        return 0;
    int number = failure.number;
    return number == EROFS || number == EACCES || number == EPERM || number == ENOENT ? 0 : -1;
}

int run_step(const struct step *step, const struct text *text, struct step_context *context)
{
    const char *source = string_at(text, step->source), *target = string_at(text, step->target);
    const char *type = string_at(text, step->type), *options = string_at(text, step->options);
    int group = -1;
    if (step->operation >= OPERATION_CGROUP_WRITE && step->operation <= OPERATION_CGROUP_EVENT) {
        if (step->mode >= (uint32_t)context->cgroup_count)
            return fail("group", EINVAL);
        group = context->cgroups[step->mode];
    }
    switch ((enum operation)step->operation) {
    case OPERATION_FOLDER:
        return make_folder(target, step->mode, context->uid);
    case OPERATION_FOLDERS:
        return make_folders(target, step->mode);
    case OPERATION_LINK:
        return make_link(source, target);
    case OPERATION_NODE:
        return make_node(target, step->mode, step->flags);
    case OPERATION_FILE:
        return make_file(target, step->mode, source);
    case OPERATION_COPY:
        return copy_readable(source, target);
    case OPERATION_MOUNT:
        return (int)check("mount", mount(source, target, *type ? type : NULL, step->flags, *options ? options : NULL));
    case OPERATION_RESTRICT:
        return restrict_mount(target, step->flags);
    case OPERATION_PIVOT:
        return pivot(target);
    case OPERATION_IMAGE:
        return mount_image(source, target, type);
    case OPERATION_UNMOUNT:
        return unmount(target);
    case OPERATION_CGROUP_WRITE:
        return write_file(group, target, source);
    case OPERATION_CGROUP_OPEN:
        return add_meter(context, open_at(group, target, (int)step->flags, 0));
    case OPERATION_CGROUP_EVENT:
        return add_memory_event(context, group, step->flags);
    case OPERATION_LIMIT:
        return lower_limit(step->mode, step->flags);
    case OPERATION_USER_LIMIT:
        return lower_user_limit(context->proc, target, source);
    }
    return fail("step", ENOSYS);
}

uint32_t run_steps(const struct step *steps, uint32_t count, const struct text *text, struct step_context *context)
{
    uint32_t taken = 0;
    while (taken < count && run_step(&steps[taken], text, context) == 0)
        ++taken;
    return taken;
}
