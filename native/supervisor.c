/* The kernel stops the caller and sends its arguments. The response is an error, or to continue. Only arguments in registers are
 * used, because they cannot change while the caller waits. Source: seccomp_unotify(2).
 *
 * `socket(AF_NETLINK, ..., NETLINK_ROUTE)`: received data of such a socket is charged to no cgroup, so their number is limited.
 *
 * Without a cgroup, resources that can be filled between two samples:
 * - `mmap(MAP_SHARED | MAP_ANONYMOUS)`: pages in no page table and no file system are invisible, so the whole length counts at
 *   once.
 * - `shmget`, `msgget` and `semget` that create an object: the total size of segments is limited by the memory limit, and queues
 *   and semaphore sets by a small number; the kernel allows 32,000 of each. */
#include "supervisor.h"

#include "kernel.h"
#include "proc.h"
#include "protocol.h"
#include "system_v.h"

#include <errno.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SHARED_BYTES_BEFORE_START ((uint64_t)64 << 20)

static int listener_descriptor = -1;
static uint64_t shared_limit_bytes = SHARED_BYTES_BEFORE_START;

/* Lengths of shared anonymous mappings: the last one of each thread, which may not exist yet, as (thread, length); older ones as
 * (0, length); and the sum of those that did not fit into the lists, which count forever. */
static struct pairs latest, older;
static uint64_t older_sum_bytes, unlisted_bytes;
static bool crowded; /* pruning a full list frees too little */

void supervisor_start(int listener)
{
    listener_descriptor = listener;
    if (listener >= 0)
        proc_folder(); /* before the limit on open files is lowered */
}

int supervisor_descriptor(void)
{
    return listener_descriptor;
}

void supervisor_limit(uint64_t bytes)
{
    shared_limit_bytes = bytes;
}

uint64_t supervisor_shared_bytes(void)
{
    uint64_t bytes = bounded_sum(older_sum_bytes, unlisted_bytes);
    for (size_t index = 0; index < latest.used; ++index)
        bytes = bounded_sum(bytes, latest.items[index].low);
    return bytes;
}

/* Recognize shared anonymous memory by the end of its line in maps. */
static bool is_shared_anonymous(const char *line)
{
    static const char ending[] = "/dev/zero (deleted)";
    size_t length = strlen(line);
    return length >= sizeof ending - 1 && strcmp(line + length - (sizeof ending - 1), ending) == 0;
}

/* Count the distinct shared anonymous mappings of all processes but ours. Returns false when a process hides its mappings. */
static bool count_shared_mappings(size_t *count)
{
    static struct pairs processes, inodes;
    if (!proc_list(&processes))
        return false;
    inodes.used = 0;
    for (size_t index = 0; index < processes.used; ++index) {
        int error = lines_open(proc_path(processes.items[index].low, "maps"));
        bool room = true;
        if (error == 0) {
            for (const char *line; room && (line = lines_next()) != NULL;) {
                if (!is_shared_anonymous(line))
                    continue;
                uint64_t inode = number_at(line, 4);
                if (inodes.used == 0 || inodes.items[inodes.used - 1].low != inode)
                    room = pairs_add(&inodes, 0, inode);
            }
            error = lines_close();
        }
        if (!room || (error != 0 && !proc_gone(error)))
            return false;
    }
    pairs_distinct(&inodes);
    *count = inodes.used;
    return true;
}

static bool has_ended(uint64_t thread)
{
    struct stat status;
    return fstatat(proc_folder(), proc_path(thread, ""), &status, 0) != 0 && proc_gone(errno);
}

/* Drop unmapped memory. It is unknown which mappings are gone, so the largest ones are kept. */
void supervisor_forget_unmapped(void)
{
    for (size_t index = latest.used; index-- > 0;)
        if (has_ended(latest.items[index].high) && pairs_add(&older, 0, latest.items[index].low))
            latest.items[index] = latest.items[--latest.used];
    size_t alive;
    if (count_shared_mappings(&alive) && alive < older.used) {
        pairs_sort(&older);
        memmove(older.items, older.items + (older.used - alive), alive * sizeof *older.items);
        older.used = alive;
    }
    older_sum_bytes = 0;
    for (size_t index = 0; index < older.used; ++index)
        older_sum_bytes = bounded_sum(older_sum_bytes, older.items[index].low);
    crowded = latest.used > PAIRS_MOST / 2 || older.used > PAIRS_MOST / 2;
}

/* Add to a list, pruning a full one. Returns false when it stays full. */
static bool add(struct pairs *list, uint64_t thread, uint64_t length)
{
    if (pairs_add(list, thread, length))
        return true;
    if (!crowded)
        supervisor_forget_unmapped();
    return pairs_add(list, thread, length);
}

/* Count a mapping that a thread is about to create. */
static void note_mapping(uint64_t thread, uint64_t length)
{
    size_t index = 0;
    while (index < latest.used && latest.items[index].high != thread)
        ++index;
    if (index == latest.used) {
        if (!add(&latest, thread, length))
            unlisted_bytes = bounded_sum(unlisted_bytes, length);
        return;
    }
    uint64_t before = latest.items[index].low;
    latest.items[index].low = length;
    if (add(&older, 0, before))
        older_sum_bytes = bounded_sum(older_sum_bytes, before);
    else
        unlisted_bytes = bounded_sum(unlisted_bytes, before);
}

/* Return ENOMEM when a mapping would exceed the limit, else 0. */
static int refuse_shared(uint64_t length)
{
    if (shared_limit_bytes == 0)
        return 0;
    if (bounded_sum(supervisor_shared_bytes(), length) > shared_limit_bytes)
        supervisor_forget_unmapped();
    return bounded_sum(supervisor_shared_bytes(), length) > shared_limit_bytes ? ENOMEM : 0;
}

/* Round a length up to whole pages. */
static uint64_t whole_pages(uint64_t length)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    return bounded_sum(length, page - 1) / page * page;
}

/* Return the number of netlink sockets in our network namespace; the maximum when it cannot be read. */
static uint64_t netlink_sockets(void)
{
    static const char name[] = "NETLINK ";
    uint64_t sockets = PROTOCOL_NETLINK_SOCKETS;
    if (lines_open("net/protocols") != 0)
        return sockets;
    for (const char *line; (line = lines_next()) != NULL;) {
        if (strncmp(line, name, sizeof name - 1) == 0) {
            sockets = number_at(line, 2);
            break;
        }
    }
    lines_close();
    return sockets;
}

/* Decide a call. Returns 0 to continue, or an errno. */
static int decide(int number, const uint64_t *arguments)
{
    switch (number) {
    case SYS_socket:
        return netlink_sockets() < PROTOCOL_NETLINK_SOCKETS ? 0 : ENOBUFS;
    case SYS_mmap:
        return refuse_shared(whole_pages(arguments[1]));
    case SYS_shmget:
        if (shared_limit_bytes == 0)
            return 0;
        return bounded_sum(system_v_segments_bytes(), arguments[1]) > shared_limit_bytes ? ENOMEM : 0;
    case SYS_msgget:
        return system_v_queues() < PROTOCOL_SYSTEM_V_QUEUES ? 0 : ENOSPC;
    case SYS_semget:
        if ((uint32_t)arguments[1] > PROTOCOL_SEMAPHORES_A_SET)
            return EINVAL;
        return system_v_semaphore_sets() < PROTOCOL_SYSTEM_V_QUEUES ? 0 : ENOSPC;
    default:
        return ENOSYS;
    }
}

/* ioctl(2), whose second parameter has different types in C libraries. */
static long notification(unsigned long request, void *argument)
{
    return syscall(SYS_ioctl, listener_descriptor, request, argument);
}

/* Send an errno, or 0 to continue. Returns false when a signal interrupted the caller, which may try again. */
static bool reply(uint64_t identifier, int number)
{
    struct seccomp_notif_resp response = {
        .id = identifier,
        .error = -number,
        .flags = number == 0 ? SECCOMP_USER_NOTIF_FLAG_CONTINUE : 0,
    };
    long sent;
    do
        sent = notification(SECCOMP_IOCTL_NOTIF_SEND, &response);
    while (sent != 0 && errno == EINTR);
    return sent == 0;
}

void supervisor_answer(void)
{
    struct seccomp_notif call;
    memset(&call, 0, sizeof call); /* the kernel requires zeros, padding included */
    if (listener_descriptor < 0 || notification(SECCOMP_IOCTL_NOTIF_RECV, &call) != 0)
        return; /* a signal interrupted the caller */
    uint64_t arguments[6];
    for (size_t index = 0; index < 6; ++index)
        arguments[index] = call.data.args[index];
    int refused = decide(call.data.nr, arguments);
    bool goes_on = reply(call.id, refused) && refused == 0;
    if (call.data.nr == SYS_mmap && goes_on && arguments[1] != 0)
        note_mapping(call.pid, whole_pages(arguments[1]));
}
