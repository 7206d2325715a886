#define FAKES_NOT_HERE
#include "fakes.h"

#include "kernel.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

enum { LONGEST_NAME = 255, NAME_BEGINS = 19, LARGEST_BYTES = 64 << 20 };

jmp_buf fake_end;
static const uint8_t *tape, *tape_end;
static bool stay_inside;
static int descriptors_made;
static pid_t last_pid; /* of those that have not ended */
static void *allocateted[64];
static size_t allocateted_count;
static volatile uint8_t seen; /* what is read for the sanitizer has to go somewhere */

void fakes_begin(const uint8_t *bytes, size_t count, bool inside)
{
    tape = bytes;
    tape_end = bytes + count;
    stay_inside = inside;
    descriptors_made = 0;
    last_pid = 0;
    while (allocateted_count > 0)
        free(allocateted[--allocateted_count]);
}

/* Memory of exactly the size that was asked for, until the next test. */
void *__wrap_allocate(size_t bytes)
{
    if (allocateted_count == sizeof allocateted / sizeof *allocateted || fake_outcome() < 0) {
        fail("mmap", ENOMEM);
        return NULL;
    }
    return allocateted[allocateted_count++] = calloc(1, bytes);
}

unsigned fake_number(void)
{
    return tape < tape_end ? *tape++ : 0;
}

/* Seven of eight calls succeed, so that most tests come far. */
int fake_outcome(void)
{
    static const int numbers[] = {EPERM, ENOENT, EEXIST, EINVAL, EBUSY, EACCES, EROFS, EINTR, ENOSYS, ESRCH, EAGAIN, ENOSPC};
    unsigned number = fake_number();
    if ((number & 7) != 7)
        return 0;
    errno = numbers[(number >> 3) % (sizeof numbers / sizeof *numbers)];
    return -1;
}

static void look_at(const void *data, size_t bytes)
{
    const uint8_t *each = data;
    for (size_t index = 0; index < bytes; ++index)
        seen ^= each[index];
}

/* Abort for a path that leaves the working directory. */
static void check_inside(const char *path)
{
    if (path[0] == '/')
        abort();
    while (path != NULL && *path != '\0') {
        size_t length = strcspn(path, "/");
        if (length == 2 && path[0] == '.' && path[1] == '.')
            abort();
        path = path[length] == '/' ? path + length + 1 : NULL;
    }
}

int fake_path(const char *path)
{
    if (path != NULL) {
        look_at(path, strlen(path) + 1);
        if (stay_inside)
            check_inside(path);
    }
    return fake_outcome();
}

int fake_descriptor(void)
{
    return fake_outcome() < 0 ? -1 : FAKE_DESCRIPTOR + descriptors_made++ % 1000;
}

int fake_open(const char *path)
{
    return fake_path(path) < 0 ? -1 : fake_descriptor();
}

int fake_close(int descriptor)
{
    if (descriptor >= 0 && descriptor < FAKE_DESCRIPTOR && descriptor > 2)
        (close)(descriptor);
    return 0;
}

pid_t fake_pid(pid_t least)
{
    unsigned number = fake_number();
    if (number == 255)
        return -1;
    last_pid = least + (pid_t)number;
    return last_pid;
}

/* Some child ends; at the end of the tape the last one. */
pid_t fake_wait(int *status)
{
    pid_t pid = tape < tape_end ? (pid_t)fake_number() : last_pid;
    if (pid == last_pid)
        last_pid = 0;
    if (status != NULL)
        *status = (int)fake_number() << 8;
    errno = ECHILD;
    return pid > 0 ? pid : -1;
}

/* What files hold: a few bytes of the tape. */
long fake_read(void *data, size_t bytes)
{
    size_t count = fake_number();
    if (fake_outcome() < 0)
        return -1;
    count = count < bytes ? count : bytes;
    for (size_t index = 0; index < count; ++index)
        ((uint8_t *)data)[index] = (uint8_t)fake_number();
    return (long)count;
}

/* Everything, a part, nothing or an error. No file is so large that to write it would take long. */
long fake_written(size_t bytes)
{
    if (fake_outcome() < 0)
        return -1;
    unsigned number = fake_number();
    if (number == 0)
        return bytes < LARGEST_BYTES ? (long)bytes : 0;
    return bytes <= 1 ? (long)bytes : (long)(1 + bytes / 256 * number);
}

/* The number of a file descriptor would not be read otherwise. */
long fake_copied(int from, size_t bytes)
{
    seen ^= (uint8_t)from;
    return fake_written(bytes);
}

long fake_write(const void *data, size_t bytes)
{
    look_at(data, bytes);
    return fake_written(bytes);
}

long fake_send(const struct msghdr *header)
{
    for (size_t index = 0; index < header->msg_iovlen; ++index)
        look_at(header->msg_iov[index].iov_base, header->msg_iov[index].iov_len);
    if (header->msg_control != NULL)
        look_at(header->msg_control, header->msg_controllen);
    return fake_outcome() < 0 ? -1 : 1;
}

int fake_poll(struct pollfd *polled, unsigned long count)
{
    for (unsigned long index = 0; index < count; ++index)
        polled[index].revents = fake_number() & 1 ? POLLIN : 0;
    return 1;
}

int fake_stat(const char *path, struct stat *status)
{
    static const mode_t types[] = {S_IFREG, S_IFDIR, S_IFLNK, S_IFIFO};
    memset(status, 0, sizeof *status);
    status->st_mode = types[fake_number() & 3] | (mode_t)(fake_number() << 1);
    status->st_size = (off_t)fake_number();
    return fake_path(path);
}

int fake_limit(struct rlimit *limit)
{
    *limit = (struct rlimit){RLIM_INFINITY, RLIM_INFINITY};
    return fake_outcome();
}

int fake_pipe(int ends[2])
{
    ends[0] = ends[1] = FAKE_DESCRIPTOR;
    return fake_outcome();
}

/* A folder as getdents64(2) has it: never a name with a slash or an empty one, else as bad as it gets. */
static long list(char *entries, size_t room)
{
    static const unsigned char types[] = {DT_REG, DT_DIR, DT_UNKNOWN, DT_LNK, DT_REG, DT_FIFO};
    size_t used = 0;
    for (unsigned count = fake_number() & 15; count > 0; --count) {
        size_t length = fake_number() % LONGEST_NAME + 1;
        size_t bytes = (NAME_BEGINS + length + 1 + 7) & ~(size_t)7;
        unsigned short stored = (unsigned short)bytes;
        if (bytes > room - used)
            break;
        char *entry = entries + used;
        memset(entry, 0, bytes);
        memcpy(entry + 16, &stored, sizeof stored);
        entry[18] = (char)types[fake_number() % sizeof types];
        char letter = 'a';
        for (size_t index = 0; index < length; ++index) {
            char next = (char)fake_number();
            letter = next != 0 && next != '/' ? next : letter;
            entry[NAME_BEGINS + index] = letter;
        }
        used += bytes;
    }
    return (long)used;
}

long fake_syscall(long number, ...)
{
    va_list arguments;
    long answer;
    va_start(arguments, number);
    if (number == SYS_clone || number == SYS_clone3) {
        answer = fake_pid(0);
        errno = EPERM;
    } else if (number == SYS_getdents64) {
        (void)va_arg(arguments, int);
        char *entries = va_arg(arguments, char *);
        size_t room = va_arg(arguments, size_t);
        answer = fake_outcome() < 0 ? -1 : list(entries, room);
    } else {
        answer = fake_outcome();
    }
    va_end(arguments);
    return answer;
}

_Noreturn void fake_exit(void)
{
    longjmp(fake_end, 1);
}
