#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernel.h"

bool stays_inside(const char *name)
{
    for (;;) {
        size_t length = strcspn(name, "/");
        if (length == 0 || (length == 1 && name[0] == '.') || (length == 2 && name[0] == '.' && name[1] == '.'))
            return false;
        if (name[length] == '\0')
            return true;
        name += length + 1;
    }
}

int make_folders_above(const char *name, const char **about)
{
    static char folder[PATH_MAX]; /* the last one, because files of a folder usually follow each other */
    const char *last = strrchr(name, '/');
    if (last == NULL)
        return 0;
    size_t length = (size_t)(last - name);
    if (length >= sizeof folder)
        return fail("mkdir", ENAMETOOLONG);
    if (strncmp(folder, name, length) == 0 && folder[length] == '\0')
        return 0;
    for (size_t end = 1; end <= length; ++end) {
        if (name[end] != '/')
            continue;
        struct stat status;
        memcpy(folder, name, end);
        folder[end] = '\0';
        if (mkdir(folder, 0777) == 0 || (errno == EEXIST && end < length))
            continue;
        if (errno == EEXIST && stat(folder, &status) == 0 && S_ISDIR(status.st_mode))
            continue;
        static char failed[PATH_MAX];
        int number = errno;
        *about = strcpy(failed, folder);
        folder[0] = '\0';
        return fail("mkdir", number);
    }
    return 0;
}

static int write_one(const struct packed_file *file, const char *name, int pack, int held)
{
    int target = held >= 0 ? (int)check("dup", fcntl(held, F_DUPFD_CLOEXEC, 0))
                           : open_at(AT_FDCWD, name, O_WRONLY | O_CREAT | O_NOFOLLOW, file->mode);
    if (target < 0)
        return -1;
    off_t from = (off_t)file->offset;
    long sent = 0;
    for (uint64_t left = file->size; left > 0 && sent >= 0; left -= (uint64_t)sent) {
        sent = check("sendfile", sendfile(target, pack, &from, left));
        if (sent == 0)
            sent = fail("sendfile", EIO); /* the pack is truncated */
        if (sent < 0)
            break;
    }
    /* Last: a placeholder must never be empty, not even for a moment. */
    if (sent >= 0)
        sent = check("ftruncate", ftruncate(target, (off_t)file->size));
    if (sent >= 0)
        sent = check("chmod", fchmod(target, file->mode));
    close(target);
    return sent < 0 ? -1 : 0;
}

int write_files(const struct packed_file *files, uint32_t count, const struct text *text, const int *packs, int pack_count,
                int held, const char *held_name, const char **about)
{
    for (const struct packed_file *file = files; file < files + count; ++file) {
        const char *name = *about = string_at(text, file->name);
        if (file->pack >= (uint32_t)pack_count || !stays_inside(name))
            return fail("name", EINVAL);
        if (make_folders_above(name, about) < 0)
            return -1;
        bool is_held = held >= 0 && strcmp(name, held_name) == 0;
        if (write_one(file, name, packs[file->pack], is_held ? held : -1) < 0)
            return -1;
    }
    return 0;
}
