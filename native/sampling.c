/* Between two samples a program can exceed its limits. What the kernel does not show counts with its maximum: pipes and sockets
 * as full, shared anonymous mappings as touched (see supervisor.c), unreadable values as the maximum. The seccomp filter for
 * sandboxes without a cgroup refuses calls that would hide more. */
#include "sampling.h"

#include "kernel.h"
#include "proc.h"
#include "protocol.h"
#include "supervisor.h"
#include "system_v.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

/* The capacity of a pipe; the filter keeps programs from raising it. */
#define PIPE_BYTES ((uint64_t)64 << 10)

/* The approximate capacity of a Unix socket: net.core.wmem_default and the kernel's overhead. */
#define LOCAL_SOCKET_BYTES ((uint64_t)256 << 10)

/* The size of an internet socket. Its queues are counted twice, because the kernel's overhead is about as large. */
#define INTERNET_SOCKET_BYTES ((uint64_t)4 << 10)

/* Sampling descriptors takes at most a fifth of the time: a few in every sample, thousands less often. */
#define DESCRIPTOR_PAUSES 4

static const char *work = "/box";
static int64_t monotonic_us(void);
static int64_t (*now_us)(void) = monotonic_us;

static struct {
    uint64_t memory_bytes, cpu_us, used_before_us;
    uint64_t open_files;
} limits;
static uint64_t peak_bytes;
static uint32_t exceeded;
static int64_t next_descriptors_at_us;
static uint64_t queued_bytes; /* in pipes and internet sockets, at the last sample of descriptors */
static struct pairs processes;

static int64_t monotonic_us(void)
{
    return clock_us(CLOCK_MONOTONIC);
}

void sampling_start(uint64_t memory_bytes, uint64_t cpu_ms, int64_t used_before_us, uint64_t open_files)
{
    limits.memory_bytes = memory_bytes;
    limits.cpu_us = bounded_product(cpu_ms, 1000);
    limits.used_before_us = used_before_us > 0 ? (uint64_t)used_before_us : 0;
    limits.open_files = open_files;
    proc_folder();
}

uint32_t sampling_exceeded(void)
{
    return exceeded;
}

uint64_t sampling_peak_bytes(void)
{
    return peak_bytes;
}

/* Lines with a number of KiB: their names in the order of the file, and the values in bytes. */
struct field {
    const char *name;
    uint64_t bytes;
};

/* Read such lines of a file. Missing ones stay 0, as in an exiting process. Returns 0 or an errno. */
static int read_fields(const char *path, struct field *fields, size_t count)
{
    int error = lines_open(path);
    if (error != 0)
        return error;
    size_t found = 0;
    for (const char *line; found < count && (line = lines_next()) != NULL;) {
        for (size_t index = found; index < count; ++index) {
            if (strncmp(line, fields[index].name, strlen(fields[index].name)) == 0) {
                fields[index].bytes = bounded_product(number_at(line, 1), 1024);
                found = index + 1;
                break;
            }
        }
    }
    return lines_close();
}

/* Memory of processes. anonymous, shared: mapped and resident. hidden: page tables and swap. */
struct memory {
    uint64_t anonymous, shared, hidden;
};

/* Read the memory of a process. Returns 0 or an errno. Source: proc_pid_status(5). */
static int read_resident(uint64_t pid, struct memory *memory)
{
    struct field fields[] = {{"RssAnon:", 0}, {"RssShmem:", 0}, {"VmPTE:", 0}, {"VmSwap:", 0}};
    int error = read_fields(proc_path(pid, "status"), fields, sizeof fields / sizeof *fields);
    *memory = (struct memory){fields[0].bytes, fields[1].bytes, bounded_sum(fields[2].bytes, fields[3].bytes)};
    return error;
}

/* Read the CPU time of a process and its reaped children. Returns 0 or an errno. */
static int read_ticks(uint64_t pid, uint64_t *ticks)
{
    char text[2048]; /* the name, which may contain anything, and 50 numbers */
    int file = open_at(proc_folder(), proc_path(pid, "stat"), O_RDONLY, 0);
    if (file < 0)
        return failure.number;
    long got = check("read", read(file, text, sizeof text - 1));
    close(file);
    if (got < 0)
        return failure.number;
    text[got] = '\0';
    const char *name_end = strrchr(text, ')');
    *ticks = 0;
    for (unsigned index = 11; name_end != NULL && index < 15; ++index)
        *ticks = bounded_sum(*ticks, number_at(name_end + 1, index));
    return 0;
}

/* Sum the memory and CPU time of all processes, without those that have ended meanwhile. */
static void sum_processes(struct memory *sum, uint64_t *ticks)
{
    *sum = (struct memory){0};
    *ticks = 0;
    if (!proc_list(&processes))
        sum->hidden = UINT64_MAX;
    for (size_t index = 0; index < processes.used; ++index) {
        struct memory memory;
        uint64_t used = 0;
        uint64_t pid = processes.items[index].low;
        int error = read_resident(pid, &memory);
        if (error == 0)
            error = read_ticks(pid, &used);
        if (proc_gone(error))
            continue;
        if (error != 0)
            memory.hidden = UINT64_MAX;
        sum->anonymous = bounded_sum(sum->anonymous, memory.anonymous);
        sum->shared = bounded_sum(sum->shared, memory.shared);
        sum->hidden = bounded_sum(sum->hidden, memory.hidden);
        *ticks = bounded_sum(*ticks, used);
    }
}

/* Sum the mapped memory of all processes with shared pages divided among their users, or undivided if that cannot be read. */
static void divide_among_sharers(struct memory *sum)
{
    sum->anonymous = sum->shared = 0;
    for (size_t index = 0; index < processes.used; ++index) {
        struct field fields[] = {{"Pss_Anon:", 0}, {"Pss_Shmem:", 0}};
        uint64_t pid = processes.items[index].low;
        int error = read_fields(proc_path(pid, "smaps_rollup"), fields, sizeof fields / sizeof *fields);
        struct memory memory = {fields[0].bytes, fields[1].bytes, 0};
        if (error != 0 && !proc_gone(error)) {
            error = read_resident(pid, &memory);
            if (error != 0 && !proc_gone(error))
                memory.anonymous = UINT64_MAX;
        }
        if (proc_gone(error))
            continue;
        sum->anonymous = bounded_sum(sum->anonymous, memory.anonymous);
        sum->shared = bounded_sum(sum->shared, memory.shared);
    }
}

/* Return whether a process is alive: one with an unreadable executable hides its descriptors, an exiting one has none. */
static bool has_memory(uint64_t pid)
{
    static const char name[] = "VmRSS:";
    int error = lines_open(proc_path(pid, "status"));
    if (error != 0)
        return !proc_gone(error);
    bool found = false;
    for (const char *line; !found && (line = lines_next()) != NULL;)
        found = strncmp(line, name, sizeof name - 1) == 0;
    error = lines_close();
    return found || (error != 0 && !proc_gone(error));
}

struct pipes {
    struct pairs distinct; /* (device, inode) */
    bool crowded;          /* removing duplicates frees too little */
    uint64_t unknown;      /* descriptors that may be other pipes */
};

static bool add_if_pipe(int folder, const struct linux_dirent64 *entry, void *context)
{
    struct pipes *pipes = context;
    struct stat status;
    if (fstatat(folder, entry->d_name, &status, 0) != 0) {
        if (!proc_gone(errno))
            ++pipes->unknown;
        return true;
    }
    if (!S_ISFIFO(status.st_mode) || pairs_add(&pipes->distinct, status.st_dev, status.st_ino))
        return true;
    if (!pipes->crowded) {
        pairs_distinct(&pipes->distinct);
        pipes->crowded = pipes->distinct.used > PAIRS_MOST / 2;
    }
    if (!pairs_add(&pipes->distinct, status.st_dev, status.st_ino))
        ++pipes->unknown;
    return true;
}

/* Return the maximum data in the pipes of all processes. Hidden descriptors count as pipes. */
static uint64_t pipe_bytes(void)
{
    static struct pipes pipes;
    pipes.distinct.used = 0;
    pipes.crowded = false;
    pipes.unknown = 0;
    for (size_t index = 0; index < processes.used; ++index) {
        uint64_t pid = processes.items[index].low;
        int folder = open_at(proc_folder(), proc_path(pid, "fd"), O_RDONLY | O_DIRECTORY, 0);
        int error = failure.number;
        if (folder >= 0) {
            error = each_entry(folder, add_if_pipe, &pipes);
            close(folder);
        }
        if ((folder < 0 || error != 0) && !proc_gone(error) && has_memory(pid))
            pipes.unknown = bounded_sum(pipes.unknown, limits.open_files);
    }
    pairs_distinct(&pipes.distinct);
    return bounded_product(bounded_sum(pipes.distinct.used, pipes.unknown), PIPE_BYTES);
}

/* Return the approximate maximum data in Unix and netlink sockets of this network namespace, including sockets in flight. */
static uint64_t local_socket_bytes(void)
{
    if (lines_open("net/protocols") != 0)
        return UINT64_MAX;
    uint64_t sockets = 0;
    for (const char *line; (line = lines_next()) != NULL;)
        if (strncmp(line, "UNIX", 4) == 0 || strncmp(line, "NETLINK", 7) == 0)
            sockets = bounded_sum(sockets, number_at(line, 2));
    return lines_close() == 0 ? bounded_product(sockets, LOCAL_SOCKET_BYTES) : UINT64_MAX;
}

/* Return the approximate maximum data in TCP and UDP sockets of this network namespace. */
static uint64_t internet_socket_bytes(void)
{
    static const char *const names[] = {"net/tcp", "net/tcp6", "net/udp", "net/udp6"};
    uint64_t waiting = 0;
    for (size_t index = 0; index < sizeof names / sizeof *names; ++index) {
        int error = lines_open(names[index]);
        if (error == ENOENT)
            continue; /* the kernel has no such protocol */
        if (error != 0)
            return UINT64_MAX;
        lines_next(); /* the header */
        for (const char *line; (line = lines_next()) != NULL;) {
            const char *queues = word_at(line, 4);
            uint64_t bytes = hexadecimal(&queues);
            if (*queues == ':')
                ++queues;
            bytes = bounded_sum(bytes, hexadecimal(&queues));
            waiting = bounded_sum(waiting, bounded_sum(INTERNET_SOCKET_BYTES, bounded_product(bytes, 2)));
        }
        if (lines_close() != 0)
            return UINT64_MAX;
    }
    return waiting;
}

/* Sample pipes and internet sockets, unless the last sample took so long that it is too early. */
static void sample_descriptors(void)
{
    int64_t began = now_us();
    if (began < next_descriptors_at_us)
        return;
    queued_bytes = bounded_sum(pipe_bytes(), internet_socket_bytes());
    int64_t ended = now_us();
    next_descriptors_at_us = ended + (ended - began) * DESCRIPTOR_PAUSES;
}

/* Return the memory that belongs to no process: files, System V segments, shared anonymous mappings. */
static uint64_t held_bytes(void)
{
    struct statfs written;
    if (statfs(work, &written) != 0)
        return UINT64_MAX;
    uint64_t blocks = written.f_blocks > written.f_bfree ? written.f_blocks - written.f_bfree : 0;
    uint64_t files = bounded_product(blocks, (uint64_t)written.f_frsize);
    return bounded_sum(files, bounded_sum(system_v_resident_bytes(), supervisor_shared_bytes()));
}

/* Return total memory. Held memory may be mapped too, so only the larger of the two counts. */
static uint64_t memory_of(uint64_t kernel_bytes, const struct memory *sum, uint64_t held)
{
    return bounded_sum(kernel_bytes, bounded_sum(sum->anonymous, sum->shared > held ? sum->shared : held));
}

/* Return the CPU time of running processes, in ticks, and of reaped ones, without what was used before the start. */
static uint64_t cpu_us(uint64_t ticks)
{
    uint64_t tick_us = (uint64_t)(1000000 / sysconf(_SC_CLK_TCK));
    uint64_t used_us = bounded_sum(bounded_product(ticks, tick_us), (uint64_t)children_cpu_us());
    return used_us > limits.used_before_us ? used_us - limits.used_before_us : 0;
}

void sample(void)
{
    struct memory sum;
    uint64_t ticks;
    sum_processes(&sum, &ticks);
    sample_descriptors();
    uint64_t kernel_bytes = bounded_sum(bounded_sum(sum.hidden, queued_bytes), local_socket_bytes());
    kernel_bytes = bounded_sum(kernel_bytes, system_v_kernel_bytes());
    uint64_t memory_bytes = memory_of(kernel_bytes, &sum, held_bytes());
    if (limits.memory_bytes != 0 && memory_bytes > limits.memory_bytes) {
        /* So far shared pages counted once for each user, and unmapped memory may have counted too. */
        divide_among_sharers(&sum);
        supervisor_forget_unmapped();
        memory_bytes = memory_of(kernel_bytes, &sum, held_bytes());
    }
    /* The peak does not include unreadable values. */
    uint64_t seen_bytes = memory_bytes < UINT64_MAX ? memory_bytes : limits.memory_bytes;
    if (seen_bytes > peak_bytes)
        peak_bytes = seen_bytes;
    if (limits.memory_bytes != 0 && memory_bytes > limits.memory_bytes)
        exceeded = EXCEEDED_MEMORY;
    else if (limits.cpu_us != 0 && cpu_us(ticks) > limits.cpu_us)
        exceeded = EXCEEDED_CPU_TIME;
}
