#include "proc.h"

#include "kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAIRS_FIRST ((size_t)256) /* a page */
#define LINE_BYTES ((size_t)16 << 10)
#define LINE_HEAD ((size_t)8 << 10) /* bytes kept of the start of a longer line */
#define LINE_TAIL ((size_t)1 << 10) /* and of its end */
#define OUT_OF_THE_WAY 100 /* keep the low descriptors free for when the limit on open files is lowered */

static const char *proc_root = "/proc";

/* The open file. text[begin..end) has been read and not returned yet; one more byte is for a NUL. */
static struct {
    int file, error;
    bool at_end;
    size_t begin, end;
    char text[LINE_BYTES + 1];
} lines = {.file = -1};

bool pairs_add(struct pairs *pairs, uint64_t high, uint64_t low)
{
    if (pairs->used == pairs->room) {
        size_t room = pairs->room == 0 ? PAIRS_FIRST : 2 * pairs->room;
        if (room > PAIRS_MOST)
            return false;
        void *memory = mmap(NULL, room * sizeof *pairs->items, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED)
            return false;
        if (pairs->room > 0) {
            memcpy(memory, pairs->items, pairs->used * sizeof *pairs->items);
            munmap(pairs->items, pairs->room * sizeof *pairs->items);
        }
        pairs->items = memory;
        pairs->room = room;
    }
    pairs->items[pairs->used++] = (struct pair){high, low};
    return true;
}

static bool less(struct pair one, struct pair other)
{
    return one.high != other.high ? one.high < other.high : one.low < other.low;
}

/* Sink the pair at `parent` until both its children in items[0..count) are smaller. */
static void sink(struct pair *items, size_t parent, size_t count)
{
    struct pair sinking = items[parent];
    for (size_t child; (child = 2 * parent + 1) < count; parent = child) {
        if (child + 1 < count && less(items[child], items[child + 1]))
            ++child;
        if (!less(sinking, items[child]))
            break;
        items[parent] = items[child];
    }
    items[parent] = sinking;
}

/* Heapsort: no input makes it slow, and it needs no memory. */
void pairs_sort(struct pairs *pairs)
{
    struct pair *items = pairs->items;
    for (size_t parent = pairs->used / 2; parent-- > 0;)
        sink(items, parent, pairs->used);
    for (size_t count = pairs->used; count > 1;) {
        struct pair largest = items[0];
        items[0] = items[--count];
        items[count] = largest;
        sink(items, 0, count);
    }
}

void pairs_distinct(struct pairs *pairs)
{
    pairs_sort(pairs);
    size_t kept = 0;
    for (size_t next = 0; next < pairs->used; ++next)
        if (kept == 0 || less(pairs->items[kept - 1], pairs->items[next]))
            pairs->items[kept++] = pairs->items[next];
    pairs->used = kept;
}

int lines_open(const char *name)
{
    lines.begin = lines.end = 0;
    lines.at_end = false;
    lines.error = 0;
    int folder = proc_folder();
    lines.file = folder < 0 ? -1 : open_at(folder, name, O_RDONLY, 0);
    return lines.file < 0 ? failure.number : 0;
}

/* Read more. Of a line that fills the buffer only the start and the end are kept. */
static void read_more(void)
{
    memmove(lines.text, lines.text + lines.begin, lines.end - lines.begin);
    lines.end -= lines.begin;
    lines.begin = 0;
    if (lines.end == LINE_BYTES) {
        memmove(lines.text + LINE_HEAD, lines.text + LINE_BYTES - LINE_TAIL, LINE_TAIL);
        lines.end = LINE_HEAD + LINE_TAIL;
    }
    ssize_t got;
    do
        got = read(lines.file, lines.text + lines.end, LINE_BYTES - lines.end);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        lines.error = errno;
    if (got <= 0)
        lines.at_end = true;
    else
        lines.end += (size_t)got;
}

const char *lines_next(void)
{
    size_t looked_at = 0;
    for (;;) {
        size_t have = lines.end - lines.begin;
        char *line = lines.text + lines.begin;
        char *newline = memchr(line + looked_at, '\n', have - looked_at);
        if (newline != NULL) {
            *newline = '\0';
            lines.begin = (size_t)(newline + 1 - lines.text);
            return line;
        }
        if (lines.at_end) {
            line[have] = '\0';
            lines.begin = lines.end;
            return have > 0 ? line : NULL;
        }
        read_more();
        looked_at = have == LINE_BYTES ? LINE_HEAD + LINE_TAIL : have;
    }
}

int lines_close(void)
{
    close(lines.file);
    lines.file = -1;
    return lines.error;
}

int proc_folder(void)
{
    static int folder = -1;
    if (folder < 0) {
        int low = open_at(AT_FDCWD, proc_root, O_RDONLY | O_DIRECTORY, 0);
        folder = low < 0 ? -1 : fcntl(low, F_DUPFD_CLOEXEC, OUT_OF_THE_WAY);
        if (folder >= 0)
            close(low);
        else
            folder = low;
    }
    return folder;
}

bool proc_gone(int number)
{
    return number == ENOENT || number == ESRCH;
}

struct listing {
    struct pairs *processes;
    bool complete;
};

static bool list_process(int folder, const struct linux_dirent64 *entry, void *context)
{
    (void)folder;
    struct listing *listing = context;
    const char *end = entry->d_name;
    uint64_t pid = parse_decimal(&end);
    if (*end == '\0' && pid != 1 && !pairs_add(listing->processes, 0, pid))
        listing->complete = false;
    return listing->complete;
}

bool proc_list(struct pairs *processes)
{
    struct listing listing = {processes, true};
    processes->used = 0;
    int folder = proc_folder();
    if (folder < 0 || lseek(folder, 0, SEEK_SET) < 0)
        return false;
    return each_entry(folder, list_process, &listing) == 0 && listing.complete;
}

const char *proc_path(uint64_t pid, const char *name)
{
    static char path[64];
    char digits[21];
    char *end = stpcpy(path, decimal(pid, digits));
    *end++ = '/';
    strncpy(end, name, sizeof path - (size_t)(end - path) - 1);
    return path;
}

static bool is_blank(char letter)
{
    return letter == ' ' || (letter >= '\t' && letter <= '\r');
}

const char *word_at(const char *line, unsigned index)
{
    for (;; --index) {
        while (is_blank(*line))
            ++line;
        if (index == 0 || *line == '\0')
            return line;
        while (*line != '\0' && !is_blank(*line))
            ++line;
    }
}

uint64_t number_at(const char *line, unsigned index)
{
    const char *word = word_at(line, index);
    return parse_decimal(&word);
}

uint64_t hexadecimal(const char **text)
{
    uint64_t number = 0;
    for (;; ++*text) {
        char digit = **text;
        unsigned value = digit >= '0' && digit <= '9' ? (unsigned)(digit - '0')
            : digit >= 'A' && digit <= 'F'            ? (unsigned)(digit - 'A') + 10
            : digit >= 'a' && digit <= 'f'            ? (unsigned)(digit - 'a') + 10
                                                      : 16;
        if (value == 16)
            return number;
        number = bounded_sum(bounded_product(number, 16), value);
    }
}
