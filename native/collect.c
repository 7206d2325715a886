#include "collect.h"

#include "kernel.h"
#include "patterns.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MOST_ENTRIES 200000U
#define DEEPEST 64U
#define MOST_LEFT_OUT 100U
#define MOST_NAME_BYTES (PROTOCOL_COLLECT_INDEX_BYTES / 2)
#define OPEN_FLAGS (O_RDONLY | O_NOFOLLOW | O_NONBLOCK)

/* Space for text in an index with the maximum number of structures. */
#define STRUCTURES_BYTES                                                                                \
    (sizeof(struct collect_index) + MOST_ENTRIES * sizeof(struct collected_file) +                      \
     MOST_LEFT_OUT * sizeof(struct collected_left_out))
#define TEXT_BYTES (PROTOCOL_COLLECT_INDEX_BYTES - STRUCTURES_BYTES)
_Static_assert(TEXT_BYTES > MOST_NAME_BYTES + MOST_LEFT_OUT * (PATH_MAX + NAME_MAX + 2), "room for every name");

/* Prefix of stored names: files sort before folders. */
#define ENTRY_FILE '\1'
#define ENTRY_FOLDER '\2'

struct pattern {
    const char *text;
    const struct token *tokens;
    bool matched;
    bool is_folder; /* it names a folder */
};

/* A folder on the current path, with its entries that are still to be visited. */
struct level {
    size_t path_length;
    size_t names_begin;
    uint32_t begin, next, end; /* in `order` */
};

/* Mapped as a whole: untouched pages cost nothing. */
struct search {
    const struct collect *request;
    int64_t deadline_us;
    bool out_of_time;
    bool incomplete; /* a folder could not be read, so it is unknown which patterns match there */
    uint32_t seen;

    struct pattern *patterns;
    uint32_t unmatched; /* number of patterns without a match so far */

    char path[PATH_MAX + NAME_MAX + 2]; /* room for a folder's path and an entry's name */
    uint32_t characters[PATH_MAX + NAME_MAX + 2];
    uint32_t depth;
    struct level levels[DEEPEST + 1];

    size_t names_used;
    uint32_t order_used;
    char names[MOST_ENTRIES * (NAME_MAX + 2)];
    uint32_t order[MOST_ENTRIES]; /* offset of each name, sorted within a folder */
    uint32_t scratch[MOST_ENTRIES];

    struct collect_index index;
    uint64_t contents_bytes;
    size_t name_bytes; /* of `files` */
    struct collected_file files[MOST_ENTRIES];
    struct collected_left_out left_out[MOST_LEFT_OUT];
    char text[TEXT_BYTES];
};

/* Map zeroed memory. Returns NULL on failure. */
static void *map(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

static bool time_is_over(struct search *search)
{
    if (!search->out_of_time)
        search->out_of_time = clock_us(CLOCK_MONOTONIC) >= search->deadline_us;
    return search->out_of_time;
}

/* Append a string to the text of the index and return its offset. The caller has checked the room. */
static uint32_t add_text(struct search *search, const char *string, size_t bytes)
{
    uint32_t offset = search->index.text_bytes;
    memcpy(search->text + offset, string, bytes);
    search->index.text_bytes += (uint32_t)bytes;
    return offset;
}

/* Record something that was left out. Only the first ones are recorded, because a program can create any number. */
static void leave_out(struct search *search, const char *name, enum left_out reason, int error)
{
    size_t bytes = strlen(name) + 1;
    if (search->index.left_out == MOST_LEFT_OUT || bytes > sizeof search->text - search->index.text_bytes)
        return;
    search->left_out[search->index.left_out++] = (struct collected_left_out){
        .name = add_text(search, name, bytes),
        .reason = reason,
        .error = (uint32_t)error,
    };
}

/* Record a folder that was not fully read. */
static void leave_out_folder(struct search *search, enum left_out reason, int error)
{
    leave_out(search, search->path, reason, error);
    search->incomplete = true;
}

/* Append a name to the path of the current folder. Returns false when it is too long. */
static bool append_to_path(struct search *search, const char *name)
{
    size_t begin = search->levels[search->depth - 1].path_length;
    size_t bytes = strlen(name) + 1;
    if (bytes > NAME_MAX + 1 || begin + 1 + bytes > sizeof search->path)
        return false;
    if (begin > 0)
        search->path[begin++] = '/';
    memcpy(search->path + begin, name, bytes);
    return true;
}

/* Truncate the path to the current folder. */
static void cut_path(struct search *search)
{
    search->path[search->levels[search->depth - 1].path_length] = '\0';
}

/* Return whether the file at the path matches. After a match only patterns without any match so far are tried. */
static bool matches(struct search *search)
{
    bool matched = false;
    size_t length = decode_name(search->path, search->characters);
    for (uint32_t i = 0; i < search->request->patterns; i++) {
        struct pattern *pattern = &search->patterns[i];
        if (matched && (pattern->matched || search->unmatched == 0))
            continue;
        if (pattern_matches(pattern->tokens, search->characters, length, search->deadline_us)) {
            matched = true;
            search->unmatched -= !pattern->matched;
            pattern->matched = true;
        }
        if (time_is_over(search))
            return false;
    }
    return matched;
}

/* Record that a pattern names a folder, which does not include its files. */
static void note_folder(struct search *search)
{
    for (uint32_t i = 0; i < search->request->patterns; i++) {
        struct pattern *pattern = &search->patterns[i];
        if (!pattern->matched && strcmp(pattern->text, search->path) == 0)
            pattern->is_folder = true;
    }
}

/* Store an entry of the current folder. There is room for `MOST_ENTRIES`, and no more are read. */
static void keep(struct search *search, char kind, const char *name)
{
    size_t bytes = strlen(name) + 1;
    search->order[search->order_used++] = (uint32_t)search->names_used;
    search->names[search->names_used] = kind;
    memcpy(search->names + search->names_used + 1, name, bytes);
    search->names_used += 1 + bytes;
}

/* Return whether the path is a folder, or -1 with errno. */
static int is_folder(const struct search *search, unsigned char type)
{
    if (type != DT_UNKNOWN)
        return type == DT_DIR;
    struct stat status;
    if (fstatat(AT_FDCWD, search->path, &status, AT_SYMLINK_NOFOLLOW) == 0)
        return S_ISDIR(status.st_mode);
    return errno == ENOENT ? 0 : -1;
}

/* Store an entry of the current folder if it has to be visited. Returns false to stop reading: out of time, too many entries, or
 * an error was recorded. */
static bool store_entry(int descriptor, const struct linux_dirent64 *entry, void *context)
{
    struct search *search = context;
    const char *name = entry->d_name;
    (void)descriptor;
    if (time_is_over(search) || ++search->seen > MOST_ENTRIES)
        return false;
    if (!append_to_path(search, name)) {
        cut_path(search);
        leave_out_folder(search, LEFT_OUT_ERROR, ENAMETOOLONG);
        return false;
    }
    int folder = is_folder(search, entry->d_type);
    int error = errno;
    if (folder > 0) {
        note_folder(search);
        if (search->depth <= DEEPEST)
            keep(search, ENTRY_FOLDER, name);
    } else if (folder == 0 && matches(search)) {
        keep(search, ENTRY_FILE, name);
    }
    cut_path(search);
    if (folder < 0)
        leave_out_folder(search, LEFT_OUT_ERROR, error);
    return folder >= 0;
}

/* Read the current folder. */
static void read_level(struct search *search)
{
    int folder = open_at(AT_FDCWD, search->path[0] != '\0' ? search->path : ".", OPEN_FLAGS | O_DIRECTORY, 0);
    if (folder < 0) {
        leave_out_folder(search, LEFT_OUT_ERROR, failure.number);
        return;
    }
    int error = each_entry(folder, store_entry, search);
    if (error != 0)
        leave_out_folder(search, LEFT_OUT_ERROR, error);
    close(folder);
}

/* Sort the stored entries of a folder: bottom-up merge sort, which can stop at the deadline. */
static void sort(struct search *search, const struct level *level)
{
    const char *names = search->names;
    uint32_t *order = search->order + level->begin;
    uint32_t *merged = search->scratch;
    size_t count = level->end - level->begin;
    for (size_t width = 1; width < count; width *= 2) {
        for (size_t begin = 0; begin < count; begin += 2 * width) {
            if (time_is_over(search))
                return; /* nothing is visited any more */
            size_t middle = begin + width < count ? begin + width : count;
            size_t end = middle + width < count ? middle + width : count;
            size_t left = begin, right = middle;
            for (size_t to = begin; to < end; to++) {
                bool from_left = right == end || (left < middle && strcmp(names + order[left], names + order[right]) <= 0);
                merged[to] = order[from_left ? left++ : right++];
            }
        }
        memcpy(order, merged, count * sizeof *order);
    }
}

/* Enter the folder at the path. */
static void enter(struct search *search)
{
    struct level *level = &search->levels[search->depth++];
    *level = (struct level){
        .path_length = strlen(search->path),
        .names_begin = search->names_used,
        .begin = search->order_used,
    };
    read_level(search);
    level->next = level->begin;
    level->end = search->order_used;
    sort(search, level);
}

/* Return to the parent folder and drop the stored entries of this one. */
static void leave(struct search *search)
{
    const struct level *level = &search->levels[--search->depth];
    search->names_used = level->names_begin;
    search->order_used = level->begin;
}

/* Add the file at the path to the index, or record why not. */
static void take(struct search *search)
{
    struct collect_index *index = &search->index;
    const struct collect *request = search->request;
    struct stat status;
    if (fstatat(AT_FDCWD, search->path, &status, AT_SYMLINK_NOFOLLOW) != 0) {
        leave_out(search, search->path, LEFT_OUT_ERROR, errno);
        return;
    }
    if (!S_ISREG(status.st_mode)) {
        leave_out(search, search->path, LEFT_OUT_NOT_REGULAR, 0);
        return;
    }
    int file = open_at(AT_FDCWD, search->path, OPEN_FLAGS, 0);
    if (file < 0) {
        leave_out(search, search->path, LEFT_OUT_ERROR, failure.number);
        return;
    }
    close(file);
    uint64_t size = (uint64_t)status.st_size;
    size_t bytes = strlen(search->path) + 1;
    if (size > request->max_bytes - search->contents_bytes) {
        leave_out(search, search->path, LEFT_OUT_TOO_LARGE, 0);
    } else if (index->files == request->max_files || index->files == MOST_ENTRIES ||
               bytes > MOST_NAME_BYTES - search->name_bytes || bytes > sizeof search->text - index->text_bytes) {
        leave_out(search, search->path, LEFT_OUT_TOO_MANY, 0);
    } else {
        search->contents_bytes += size;
        search->name_bytes += bytes;
        search->files[index->files++] = (struct collected_file){
            .size = size,
            .mode = status.st_mode & 0755,
            .name = add_text(search, search->path, bytes),
        };
    }
}

/* Visit the working directory: in each folder first the files, then the folders. */
static void visit_everything(struct search *search)
{
    enter(search);
    while (search->depth > 0) {
        struct level *level = &search->levels[search->depth - 1];
        cut_path(search);
        const char *entry = level->next < level->end ? search->names + search->order[level->next++] : NULL;
        bool is_file = entry != NULL && *entry == ENTRY_FILE;
        if (search->out_of_time || (is_file && time_is_over(search))) {
            leave_out_folder(search, LEFT_OUT_OUT_OF_TIME, 0);
            return;
        }
        if (!is_file && search->seen > MOST_ENTRIES) {
            leave_out_folder(search, LEFT_OUT_TOO_MANY_ENTRIES, 0);
            return;
        }
        if (entry == NULL)
            leave(search);
        else if (append_to_path(search, entry + 1) && is_file)
            take(search);
        else
            enter(search);
    }
}

/* Compile the patterns. tokens: room for as many as their text has bytes. */
static void compile_patterns(struct search *search, struct token *tokens, const char *text)
{
    search->unmatched = search->request->patterns;
    for (uint32_t i = 0; i < search->request->patterns; i++) {
        search->patterns[i] = (struct pattern){.text = text, .tokens = tokens};
        pattern_compile(text, tokens);
        size_t bytes = strlen(text) + 1;
        text += bytes;
        tokens += bytes;
    }
}

/* Record the patterns without a match, each once. */
static void leave_out_patterns(struct search *search)
{
    uint32_t first = search->index.left_out;
    for (uint32_t i = 0; i < search->request->patterns; i++) {
        const struct pattern *pattern = &search->patterns[i];
        if (pattern->matched)
            continue;
        bool noted = false;
        for (uint32_t j = first; j < search->index.left_out && !noted; j++)
            noted = strcmp(search->text + search->left_out[j].name, pattern->text) == 0;
        if (!noted)
            leave_out(search, pattern->text, pattern->is_folder ? LEFT_OUT_FOLDER : LEFT_OUT_NO_MATCH, 0);
    }
}

/* Send the contents of a file. Returns false when it is shorter than in the index. */
static bool send_file(int sink, const char *name, uint64_t size)
{
    int file = open_at(AT_FDCWD, name, OPEN_FLAGS, 0);
    if (file < 0)
        return false;
    while (size > 0) {
        ssize_t sent = sendfile(sink, file, NULL, size);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent <= 0)
            break;
        size -= (uint64_t)sent;
    }
    close(file);
    return size == 0;
}

/* Send the pack. After a failure the reader gets a short pack, which it rejects. */
static void send_found(int sink, const struct search *search)
{
    const struct collect_index *index = &search->index;
    if (write_all(sink, index, sizeof *index) < 0 ||
        write_all(sink, search->files, index->files * sizeof *search->files) < 0 ||
        write_all(sink, search->left_out, index->left_out * sizeof *search->left_out) < 0 ||
        write_all(sink, search->text, index->text_bytes) < 0)
        return;
    for (uint32_t i = 0; i < index->files; i++)
        if (!send_file(sink, search->text + search->files[i].name, search->files[i].size))
            return;
}

void collect(int sink, const struct collect *request, const char *text)
{
    int64_t began_us = clock_us(CLOCK_PROCESS_CPUTIME_ID);
    int64_t deadline_us = clock_us(CLOCK_MONOTONIC) + (int64_t)request->budget_ms * 1000;
    /* One more byte: mmap(2) rejects an empty mapping. */
    size_t patterns_bytes = request->patterns * sizeof(struct pattern) + 1;
    size_t tokens_bytes = request->text_bytes * sizeof(struct token) + 1;
    struct search *search = map(sizeof *search);
    struct pattern *patterns = map(patterns_bytes);
    struct token *tokens = map(tokens_bytes);
    if (search != NULL && patterns != NULL && tokens != NULL) {
        search->request = request;
        search->deadline_us = deadline_us;
        search->patterns = patterns;
        compile_patterns(search, tokens, text);
        visit_everything(search);
        if (!search->incomplete)
            leave_out_patterns(search);
        search->index.cpu_us = (uint64_t)(clock_us(CLOCK_PROCESS_CPUTIME_ID) - began_us);
        send_found(sink, search);
    }
    if (search != NULL)
        munmap(search, sizeof *search);
    if (patterns != NULL)
        munmap(patterns, patterns_bytes);
    if (tokens != NULL)
        munmap(tokens, tokens_bytes);
}
