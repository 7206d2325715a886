#include "copy.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernel.h"

enum { DEEPEST = 16, LARGEST_BYTES = 16 << 20 };

static int copy_at(int from, const char *name, int to, const char *target, int depth);

static bool is_missing(int number)
{
    return number == ENOENT || number == EACCES || number == EPERM || number == EEXIST;
}

static int copy_file(int from, const char *name, int to, const char *target, const struct stat *status)
{
    int readable = open_at(from, name, O_RDONLY | O_NOFOLLOW, 0);
    if (readable < 0)
        return -1;
    int writable = open_at(to, target, O_WRONLY | O_CREAT | O_EXCL, 0644);
    long sent = 1;
    if (writable >= 0) {
        for (off_t at = 0; sent > 0 && at < status->st_size;)
            sent = check("sendfile", sendfile(writable, readable, &at, (size_t)(status->st_size - at)));
        if (sent >= 0)
            sent = check("chmod", fchmod(writable, (status->st_mode & 0755) | 0444));
        close(writable);
    }
    close(readable);
    return writable < 0 || sent < 0 ? -1 : 0;
}

static int copy_link(int from, const char *name, int to, const char *target)
{
    char content[PATH_MAX];
    long length = check("readlink", readlinkat(from, name, content, sizeof content - 1));
    if (length < 0)
        return -1;
    content[length] = '\0';
    return (int)check("symlink", symlinkat(content, to, target));
}

/* The copy of a folder: its target, the depth of its entries, and -1 after a failure. */
struct copy {
    int to, depth, done;
};

static bool copy_entry(int folder, const struct linux_dirent64 *entry, void *context)
{
    struct copy *copy = context;
    copy->done = copy_at(folder, entry->d_name, copy->to, entry->d_name, copy->depth);
    return copy->done == 0;
}

static int copy_folder(int from, const char *name, int to, const char *target, int depth)
{
    if (check("mkdir", mkdirat(to, target, 0755)) < 0)
        return -1;
    int source = open_at(from, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (source < 0)
        return -1;
    struct copy copy = {.to = open_at(to, target, O_PATH | O_DIRECTORY, 0), .depth = depth + 1};
    if (copy.to < 0 || each_entry(source, copy_entry, &copy) != 0)
        copy.done = -1;
    if (copy.to >= 0)
        close(copy.to);
    close(source);
    return copy.done;
}

static int copy_at(int from, const char *name, int to, const char *target, int depth)
{
    struct stat status;
    int done = 0;
    if (check("stat", fstatat(from, name, &status, AT_SYMLINK_NOFOLLOW)) < 0)
        done = -1;
    else if (S_ISLNK(status.st_mode))
        done = copy_link(from, name, to, target);
    else if (S_ISDIR(status.st_mode) && (status.st_mode & 0005) == 0005 && depth < DEEPEST)
        done = copy_folder(from, name, to, target, depth);
    else if (S_ISREG(status.st_mode) && (status.st_mode & 0004) && status.st_size <= LARGEST_BYTES)
        done = copy_file(from, name, to, target, &status);
    return done < 0 && is_missing(failure.number) ? 0 : done;
}

int copy_readable(const char *source, const char *target)
{
    return copy_at(AT_FDCWD, source, AT_FDCWD, target, 0);
}
