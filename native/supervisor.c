/* The kernel stops the caller and sends its arguments here; the answer is an error, or to go on. Only arguments in registers are
 * looked at: nobody can change them while the caller waits. Source: seccomp_unotify(2).
 *
 * `socket(AF_NETLINK, ..., NETLINK_ROUTE)`: the kernel charges what such a socket has received to nobody, so a sandbox gets few.
 *
 * Only where no cgroup counts, what could be filled faster than PID 1 looks:
 * - `mmap(MAP_SHARED | MAP_ANONYMOUS)`: pages that are in no page table and in no file system are visible nowhere, so the
 *   length of the mapping counts from the start.
 * - `shmget`, `msgget` and `semget` that make something new: the sizes of all segments stay within the memory limit, and
 *   queues and sets of semaphores, of which the kernel gives 32,000 each, are few. */
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

/* Lengths of shared anonymous mappings: the last one of each thread, which it may not have made yet (thread, length); those
 * before (0, length); and those for which there was no room in the lists, which count for ever. */
static struct pairs latest, older;
static uint64_t older_sum_bytes, unlisted_bytes;
static bool crowded; /* so many have stayed that a full list is not worth looking through again */

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

/* Tell a mapping of shared anonymous memory by the end of its line. */
static bool is_shared_anonymous(const char *line)
{
    static const char ending[] = "/dev/zero (deleted)";
    size_t length = strlen(line);
    return length >= sizeof ending - 1 && strcmp(line + length - (sizeof ending - 1), ending) == 0;
}

/* Count the shared anonymous mappings of all processes but ours, each once. Returns false when one hides its own. */
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

/* Keep what can still be there: which mapping has gone is not known, so the largest ones are taken to have stayed. */
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

/* Add to a list, which is made shorter when it is full. Returns false when there is no room. */
static bool add(struct pairs *list, uint64_t thread, uint64_t length)
{
    if (pairs_add(list, thread, length))
        return true;
    if (!crowded)
        supervisor_forget_unmapped();
    return pairs_add(list, thread, length);
}

/* Count a mapping that a thread is going to make. */
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

/* Return ENOMEM when a mapping would pass the limit, else 0. */
static int refuse_shared(uint64_t length)
{
    if (shared_limit_bytes == 0)
        return 0;
    if (bounded_sum(supervisor_shared_bytes(), length) > shared_limit_bytes)
        supervisor_forget_unmapped();
    return bounded_sum(supervisor_shared_bytes(), length) > shared_limit_bytes ? ENOMEM : 0;
}

/* Return what the kernel maps for a length: whole pages, nothing for 0. */
static uint64_t whole_pages(uint64_t length)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    return bounded_sum(length, page - 1) / page * page;
}

/* Count the netlink sockets of programs in our network namespace, in all hands; too many where nothing tells. */
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

/* Decide a call: 0 to go on, or an errno. */
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

/* ioctl(2), whose second parameter has another type in each C library. */
static long notification(unsigned long request, void *argument)
{
    return syscall(SYS_ioctl, listener_descriptor, request, argument);
}

/* Send an error, or 0 to go on. Returns false when a signal took the caller away, which may ask again. */
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
    memset(&call, 0, sizeof call); /* padding too: the kernel refuses what is not zero */
    if (listener_descriptor < 0 || notification(SECCOMP_IOCTL_NOTIF_RECV, &call) != 0)
        return; /* a signal took the caller away */
    uint64_t arguments[6];
    for (size_t index = 0; index < 6; ++index)
        arguments[index] = call.data.args[index];
    int refused = decide(call.data.nr, arguments);
    bool goes_on = reply(call.id, refused) && refused == 0;
    if (call.data.nr == SYS_mmap && goes_on && arguments[1] != 0)
        note_mapping(call.pid, whole_pages(arguments[1]));
}
