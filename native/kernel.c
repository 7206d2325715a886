#include "kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { ENTRIES_BYTES = 16 << 10 };

struct failure failure;

int fail(const char *call, int number)
{
    failure.call = call;
    failure.number = number;
    return -1;
}

long check(const char *call, long returned)
{
    if (returned == -1)
        fail(call, errno);
    return returned;
}

void *allocate(size_t bytes)
{
    static char pool[16 << 10];
    static size_t used;
    bytes = (bytes + 15) & ~(size_t)15;
    if (bytes <= sizeof pool - used) {
        void *here = pool + used;
        used += bytes;
        return here;
    }
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        fail("mmap", errno);
        return NULL;
    }
    return memory;
}

int open_at(int folder, const char *name, int flags, unsigned mode)
{
    return (int)check("open", openat(folder, name, flags | O_CLOEXEC, mode));
}

long read_file(int folder, const char *name, char *buffer, size_t room)
{
    int file = open_at(folder, name, O_RDONLY, 0);
    if (file < 0)
        return -1;
    size_t have = 0;
    long got = 1;
    while (have < room - 1 && (got = read(file, buffer + have, room - 1 - have)) > 0)
        have += (size_t)got;
    int number = errno;
    close(file);
    buffer[have] = '\0';
    return got < 0 ? fail("read", number) : (long)have;
}

int write_file(int folder, const char *name, const char *text)
{
    int file = open_at(folder, name, O_WRONLY, 0);
    if (file < 0)
        return -1;
    long written = check("write", write(file, text, strlen(text)));
    close(file);
    return written < 0 ? -1 : 0;
}

int each_entry(int folder, bool (*entry)(int folder, const struct linux_dirent64 *entry, void *context), void *context)
{
    _Alignas(struct linux_dirent64) char buffer[ENTRIES_BYTES];
    for (;;) {
        long got = check("getdents64", syscall(SYS_getdents64, folder, buffer, sizeof buffer));
        if (got <= 0)
            return got < 0 ? failure.number : 0;
        for (long at = 0; at < got;) {
            const struct linux_dirent64 *here = (const void *)(buffer + at);
            at += here->d_reclen;
            if (strcmp(here->d_name, ".") != 0 && strcmp(here->d_name, "..") != 0 && !entry(folder, here, context))
                return 0;
        }
    }
}

int set_limit(int pid, int resource, uint64_t value)
{
    uint64_t limit[2] = {value, value};
    return (int)check("prlimit", syscall(SYS_prlimit64, pid, resource, limit, NULL));
}

uint64_t hard_limit(int resource)
{
    uint64_t limit[2] = {RLIM_INFINITY, RLIM_INFINITY};
    syscall(SYS_prlimit64, 0, resource, NULL, limit);
    return limit[1];
}

int become_user(uid_t uid, gid_t gid)
{
    if (check("setgroups", syscall(SYS_setgroups, 0, NULL)) < 0 || check("setresgid", syscall(SYS_setresgid, gid, gid, gid)) < 0)
        return -1;
    return (int)check("setresuid", syscall(SYS_setresuid, uid, uid, uid));
}

/* Write an id map with one entry. */
static int map_id(int proc, const char *file, uint32_t inside, uint32_t outside)
{
    char line[64], number[21];
    strcat(strcpy(line, decimal(inside, number)), " ");
    return write_file(proc, file, strcat(strcat(line, decimal(outside, number)), " 1"));
}

int map_ids(int proc, uid_t inside, uid_t uid, gid_t gid)
{
    if (write_file(proc, "self/setgroups", "deny") < 0 || map_id(proc, "self/uid_map", inside, uid) < 0)
        return -1;
    return map_id(proc, "self/gid_map", inside, gid);
}

int write_all(int descriptor, const void *data, size_t bytes)
{
    const char *from = data;
    while (bytes > 0) {
        long written = write(descriptor, from, bytes);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return fail("write", errno);
        from += written;
        bytes -= (size_t)written;
    }
    return 0;
}

char *decimal(uint64_t number, char buffer[static 21])
{
    char *first = buffer + 20;
    *first = '\0';
    do
        *--first = (char)('0' + number % 10);
    while ((number /= 10) != 0);
    return first;
}

uint64_t parse_decimal(const char **text)
{
    uint64_t number = 0;
    while (**text == ' ' || **text == '\t')
        ++*text;
    while (**text >= '0' && **text <= '9')
        number = bounded_sum(bounded_product(number, 10), (uint64_t)(*(*text)++ - '0'));
    return number;
}

uint64_t bounded_sum(uint64_t one, uint64_t other)
{
    uint64_t sum;
    return __builtin_add_overflow(one, other, &sum) ? UINT64_MAX : sum;
}

uint64_t bounded_product(uint64_t one, uint64_t other)
{
    uint64_t product;
    return __builtin_mul_overflow(one, other, &product) ? UINT64_MAX : product;
}

int64_t clock_us(int clock)
{
    struct timespec time = {0, 0};
    clock_gettime((clockid_t)clock, &time);
    return (int64_t)time.tv_sec * 1000000 + time.tv_nsec / 1000;
}

int64_t now_ms(void)
{
    return clock_us(CLOCK_MONOTONIC) / 1000;
}

int64_t children_cpu_us(void)
{
    struct rusage used;
    getrusage(RUSAGE_CHILDREN, &used);
    return (int64_t)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000 + used.ru_utime.tv_usec + used.ru_stime.tv_usec;
}
