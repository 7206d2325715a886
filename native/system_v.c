#include "system_v.h"

#include "kernel.h"
#include "proc.h"

#include <stddef.h>

/* Overhead of a message, and minimum size of a queue or semaphore set. A semaphore counts as a message. */
#define MESSAGE_BYTES 64
#define OBJECT_BYTES 512

/* Sum a function over all lines but the first, which is a header. */
static uint64_t sum(const char *name, uint64_t (*of)(const char *line))
{
    if (lines_open(name) != 0)
        return UINT64_MAX;
    uint64_t total = 0;
    lines_next();
    for (const char *line; (line = lines_next()) != NULL;)
        total = bounded_sum(total, of(line));
    return lines_close() == 0 ? total : UINT64_MAX;
}

static uint64_t one(const char *line)
{
    (void)line;
    return 1;
}

static uint64_t size(const char *line)
{
    return number_at(line, 3);
}

/* Columns rss and swap. */
static uint64_t resident(const char *line)
{
    return bounded_sum(number_at(line, 14), number_at(line, 15));
}

/* Columns cbytes and qnum. */
static uint64_t queue(const char *line)
{
    return bounded_sum(OBJECT_BYTES, bounded_sum(number_at(line, 3), bounded_product(number_at(line, 4), MESSAGE_BYTES)));
}

/* Column nsems. */
static uint64_t semaphores(const char *line)
{
    return bounded_sum(OBJECT_BYTES, bounded_product(number_at(line, 3), MESSAGE_BYTES));
}

uint64_t system_v_queues(void)
{
    return sum("sysvipc/msg", one);
}

uint64_t system_v_semaphore_sets(void)
{
    return sum("sysvipc/sem", one);
}

uint64_t system_v_segments_bytes(void)
{
    return sum("sysvipc/shm", size);
}

uint64_t system_v_resident_bytes(void)
{
    return sum("sysvipc/shm", resident);
}

uint64_t system_v_kernel_bytes(void)
{
    return bounded_sum(sum("sysvipc/msg", queue), sum("sysvipc/sem", semaphores));
}
