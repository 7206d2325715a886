/* Fuzz the sampling of /proc by PID 1 without a cgroup: sampling.c, supervisor.c, system_v.c and proc.c.
 *
 * The input, in parts with a byte of 255 between them: how much is read at once and how often each file is repeated, then the
 * files in the order of `file_names`, at last pids and descriptors. A file that begins with 254 cannot be opened, one that ends with
 * it cannot be read to its end; the byte before or after is the errno. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

enum { PART_ENDS = 255, FAILS = 254, FILES = 10, FOLDER = 500, FIRST_FILE = 1000, LONGEST_REPETITION = 1 << 15 };

static const char *const file_names[FILES] = {"/status", "/stat",   "/maps",       "/smaps_rollup", "net/protocols",
                                              "net/tcp", "net/udp", "sysvipc/msg", "sysvipc/sem",   "sysvipc/shm"};

struct part {
    const uint8_t *bytes;
    size_t count;
};
static struct part settings, parts[FILES], folder_part;
static size_t positions[FILES];
static bool folder_was_read;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static unsigned setting(size_t index)
{
    return index < settings.count ? settings.bytes[index] : 0;
}

static int fake_open(const char *path)
{
    for (int index = 0; index < FILES; ++index) {
        const struct part *part = &parts[index];
        if (strstr(path, file_names[index]) == NULL)
            continue;
        positions[index] = 0;
        if (part->count == 0 || part->bytes[0] != FAILS)
            return FIRST_FILE + index;
        errno = part->count > 1 && part->bytes[1] != 0 ? part->bytes[1] : EACCES;
        return -1;
    }
    folder_was_read = false;
    return FOLDER;
}

static long fake_read(int file, char *data, size_t room)
{
    static const size_t most[] = {SIZE_MAX, 61, 1021, 4096};
    const struct part *part = &parts[file - FIRST_FILE];
    size_t *position = &positions[file - FIRST_FILE];
    size_t length = part->count * ((size_t)1 << (setting(1) & 15));
    size_t count = most[setting(0) & 3];
    length = length < LONGEST_REPETITION ? length : part->count;
    count = count < room ? count : room;
    count = count < length - *position ? count : length - *position;
    if (count == 0 && part->count > 1 && part->bytes[part->count - 1] == FAILS) {
        unsigned number = part->bytes[part->count - 2];
        errno = number == 0 || number == EINTR ? EIO : (int)number; /* else it would be interrupted forever */
        return -1;
    }
    for (size_t index = 0; index < count; ++index)
        data[index] = (char)part->bytes[(*position)++ % part->count];
    return (long)count;
}

/* Each byte is an entry, most of them numbers. */
static long fake_list(char *entries, size_t room)
{
    static const char *const others[] = {".", "..", "self", "-1", "1x", "99999999999999999999999"};
    const unsigned short length = 48;
    size_t used = 0;
    for (size_t index = 0; !folder_was_read && index < folder_part.count && room - used >= length; ++index) {
        char *entry = entries + used;
        unsigned number = folder_part.bytes[index];
        memset(entry, 0, length);
        memcpy(entry + 16, &length, sizeof length);
        if (number < sizeof others / sizeof *others)
            strcpy(entry + 19, others[number]);
        else
            snprintf(entry + 19, 4, "%u", number);
        used += length;
    }
    folder_was_read = true;
    return (long)used;
}

/* Only getdents64(2): responses to a program need a kernel. */
static long fake_syscall(long number, ...)
{
    long answer = -1;
    va_list arguments;
    va_start(arguments, number);
    if (number == SYS_getdents64) {
        (void)va_arg(arguments, int);
        char *entries = va_arg(arguments, char *);
        answer = fake_list(entries, va_arg(arguments, size_t));
    }
    va_end(arguments);
    return answer;
}

static int fake_stat(const char *name, struct stat *status)
{
    memset(status, 0, sizeof *status);
    size_t letter = (unsigned char)name[0];
    status->st_mode = letter & 1 ? S_IFIFO : S_IFREG;
    status->st_ino = letter;
    errno = ENOENT;
    return setting(2) != 0 && letter % setting(2) == 0 ? -1 : 0;
}

static int fake_statfs(struct statfs *status)
{
    memset(status, 0xA5, sizeof *status);
    return setting(3) == 1 ? -1 : 0;
}

static int64_t no_time(void)
{
    return 0;
}

#define openat(folder, path, flags, mode) ((void)(folder), (void)(flags), (void)(mode), fake_open(path))
#define read(file, data, room) fake_read(file, data, room)
#define close(file) ((void)(file))
#define lseek(file, to, from) ((void)(folder_was_read = false), 0)
#define fcntl(file, ...) (file)
#define fstatat(folder, name, status, flags) ((void)(folder), fake_stat(name, status))
#define statfs(path, status) ((void)(path), fake_statfs(status))
#define syscall(...) fake_syscall(__VA_ARGS__)
/* Lists of exactly their size. */
#define mmap(where, bytes, ...) calloc(1, bytes)
#define munmap(memory, bytes) free(memory)

#include "kernel.c"
#include "proc.c"
#include "system_v.c"

#include "supervisor.c"

#include "sampling.c"

#undef statfs

static struct part cut_part(const uint8_t **data, size_t *bytes)
{
    const uint8_t *end = *bytes > 0 ? memchr(*data, PART_ENDS, *bytes) : NULL;
    struct part part = {*data, end != NULL ? (size_t)(end - *data) : *bytes};
    size_t used = part.count + (end != NULL);
    *data += used;
    *bytes -= used;
    return part;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static const int calls[] = {SYS_socket, SYS_mmap, SYS_shmget, SYS_msgget, SYS_semget, SYS_getpid};
    settings = cut_part(&data, &bytes);
    for (int index = 0; index < FILES; ++index)
        parts[index] = cut_part(&data, &bytes);
    folder_part = cut_part(&data, &bytes);
    now_us = no_time;
    next_descriptors_at_us = 0;
    exceeded = 0;
    latest.used = older.used = 0;
    older_sum_bytes = unlisted_bytes = 0;
    sampling_start(setting(4), setting(5), 0, setting(6));
    supervisor_limit(setting(7) << 12);
    for (size_t index = 8; index < settings.count; ++index)
        note_mapping(index % 3, (uint64_t)settings.bytes[index] << 12);
    sample();
    for (size_t index = 0; index < sizeof calls / sizeof *calls; ++index) {
        uint64_t arguments[6] = {0, setting(8) << 10};
        decide(calls[index], arguments);
    }
    supervisor_forget_unmapped();
    return 0;
}
