#include "capture.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernel.h"
#include "tracing.h"

#ifndef __x86_64__
void start_capture(const char *main_file, bool other_pid, int error_stream)
{
    (void)main_file, (void)other_pid;
    dup2(error_stream, 2);
    die("templates are for x86-64");
}
#else

#include <elf.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/ptrace.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>

#include "capture_threads.h"
#include "proc.h"
#include "protocol.h"
#include "restorer.inc"

/* The tracer is a child of the future interpreter, which therefore has the usual pid of a program: C libraries cache it. */

enum {
    MAPPINGS = 2048,
    PIECES = 8192,
    TEXT_BYTES = 128 << 10,
    PAGES_AT_ONCE = 512,
    PROCESSES = 2,
    OTHER_PID = 1 << 22 /* above all pids of the kernel; proc(5), /proc/sys/kernel/pid_max */
};

#define QUERY_PERSONALITY 0xFFFFFFFFUL
#define PAGE_PRESENT (1ULL << 63)
#define PAGE_SWAPPED (1ULL << 62)
#define PAGE_OF_FILE (1ULL << 61) /* Source: the kernel's admin-guide/mm/pagemap.rst */
#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08 /* Linux 6.11 */
#endif

_Static_assert(sizeof restorer <= TEMPLATE_AT, "the restorer's place");
_Static_assert(sizeof(struct template_head) + MAPPINGS * sizeof(struct template_mapping) +
                       PIECES * sizeof(struct template_piece) + TEXT_BYTES <=
                   TEMPLATE_TABLES_BYTES,
               "the place of the tables");

static int output;
static uint64_t output_bytes;

static struct template_head head;
static struct template_mapping mappings[MAPPINGS];
static struct template_piece pieces[PIECES];
static char text[TEXT_BYTES];
static uint32_t text_bytes = 1; /* offset 0: "" */

static const char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash == NULL ? path : slash + 1;
}

/* Return whether a call to open(2) is for a file of this name. */
static bool opens(uint64_t path_address, uint64_t flags, const char *main_file)
{
    char path[PATH_MAX];
    open_memory();
    long got = try_read_remote(path_address, path, sizeof path - 1);
    path[got < 0 ? 0 : got] = '\0';
    return !(flags & O_PATH) && strcmp(last_part(path), last_part(main_file)) == 0;
}

/* Return whether this is the call to capture. */
static bool is_waiting_in(const struct ptrace_syscall_info *info, const char *main_file)
{
    if (info->op != PTRACE_SYSCALL_INFO_ENTRY)
        return false;
    if (*main_file == '\0')
        return info->entry.nr == SYS_read && info->entry.args[0] == PROTOCOL_GATE;
    return (info->entry.nr == SYS_openat && opens(info->entry.args[1], info->entry.args[2], main_file)) ||
           (info->entry.nr == SYS_open && opens(info->entry.args[0], info->entry.args[1], main_file));
}

/* Make the system call that has just ended return a pid that the interpreter never has in a sandbox. OpenSSL reseeds its random
 * generators in a process with another pid. Source: its providers/implementations/rands/drbg.c, `fork_id`. */
static void return_other_pid(void)
{
    struct user_regs_struct registers;
    trace("PTRACE_GETREGS", PTRACE_GETREGS, 0, &registers);
    registers.rax = OTHER_PID;
    trace("PTRACE_SETREGS", PTRACE_SETREGS, 0, &registers);
}

static void run_until_waiting(const char *main_file, bool other_pid)
{
    struct ptrace_syscall_info info;
    bool asks = false;
    do {
        run_to_next_stop();
        trace("PTRACE_GET_SYSCALL_INFO", PTRACE_GET_SYSCALL_INFO, sizeof info, &info);
        if (asks && info.op == PTRACE_SYSCALL_INFO_EXIT)
            return_other_pid();
        asks = other_pid && info.op == PTRACE_SYSCALL_INFO_ENTRY && info.entry.nr == SYS_getpid;
    } while (!is_waiting_in(&info, main_file));
}

/* Skip the system call that the interpreter is about to make. */
static void skip_call(void)
{
    struct user_regs_struct without = traced->registers;
    without.orig_rax = ~0ULL;
    trace("PTRACE_SETREGS", PTRACE_SETREGS, 0, &without);
    run_to_next_stop();
}

/* Save the kernel's settings of the process, by system calls from inside it. */
static void capture_settings(void)
{
    struct itimerval timer;
    struct itimerspec made;
    uint64_t scratch = (traced->registers.rsp - TEMPLATE_PAGE) & ~15ULL; /* unused memory beyond the end of the stack */
    for (uint64_t signal = 1; signal <= TEMPLATE_SIGNALS; ++signal)
        remote_query("rt_sigaction", SYS_rt_sigaction, signal, 0, scratch, 8, scratch, &head.actions[signal],
                  sizeof head.actions[signal]);
    for (uint64_t which = ITIMER_REAL; which <= ITIMER_PROF; ++which) {
        remote_query("getitimer", SYS_getitimer, which, scratch, 0, 0, scratch, &timer, sizeof timer);
        if (timer.it_value.tv_sec != 0 || timer.it_value.tv_usec != 0)
            die("it has set a timer");
    }
    for (uint32_t index = 0; index < head.timers; ++index) {
        remote_query("timer_gettime", SYS_timer_gettime, (uint64_t)head.timer[index].number, scratch, 0, 0, scratch, &made,
                  sizeof made);
        if (made.it_value.tv_sec != 0 || made.it_value.tv_nsec != 0)
            die("it has set a timer");
    }
    head.layout.brk = (uint64_t)remote_call(SYS_brk, 0, 0, 0, 0);
    for (uint32_t index = 0; index < head.threads; ++index) {
        traced = &head.thread[index];
        capture_thread_settings(scratch);
    }
    traced = &head.thread[0];
}

/* Save the memory layout. Source: proc(5), /proc/PID/stat, which counts fields from 1. */
static void capture_layout(void)
{
    char line[4096];
    read_proc_file("stat", line, sizeof line);
    const char *state = strrchr(line, ')'); /* is field 2 */
    if (state == NULL || *++state == '\0')
        die("stat");
    head.layout = (struct template_layout){
        .start_code = number_at(state, 26 - 3), .end_code = number_at(state, 27 - 3), .start_stack = number_at(state, 28 - 3),
        .start_data = number_at(state, 45 - 3), .end_data = number_at(state, 46 - 3), .start_brk = number_at(state, 47 - 3),
        .arg_start = number_at(state, 48 - 3), .arg_end = number_at(state, 49 - 3), .env_start = number_at(state, 50 - 3),
        .env_end = number_at(state, 51 - 3), .brk = head.layout.brk, .program = ~0U};
    int file = open_at(proc_folder(), proc_path((uint64_t)interpreter, "auxv"), O_RDONLY, 0);
    long bytes = file < 0 ? -1 : read(file, head.auxv, sizeof head.auxv);
    require("auxv", bytes >= 0);
    close(file);
    head.layout.auxv_bytes = (uint32_t)bytes;
    for (size_t index = 0; index + 1 < TEMPLATE_AUXV && head.auxv[index] != AT_NULL; index += 2)
        if (head.auxv[index] == AT_SYSINFO_EHDR)
            head.vdso = head.auxv[index + 1];
}

static uint32_t keep_text(const char *word)
{
    size_t bytes = strlen(word) + 1;
    if (bytes > TEXT_BYTES - text_bytes)
        die("it has mapped too many files");
    memcpy(text + text_bytes, word, bytes);
    text_bytes += (uint32_t)bytes;
    return text_bytes - (uint32_t)bytes;
}

/* Save the path of a mapping, or reuse that of the previous mapping. */
static uint32_t keep_path(const char *path)
{
    uint32_t before = head.mappings > 0 ? mappings[head.mappings - 1].path : 0;
    return before != 0 && strcmp(text + before, path) == 0 ? before : keep_text(path);
}

/* Return whether the `VmFlags` of a mapping contain a two-letter flag. Source: proc(5), /proc/PID/smaps. */
static bool has_flag(const char *flags, const char *flag)
{
    const char *found = strstr(flags, flag);
    return found != NULL && found[-1] == ' ';
}

static void write_out(const void *data, size_t bytes, uint64_t at)
{
    require("lseek", lseek(output, (off_t)at, SEEK_SET) >= 0);
    if (write_all(output, data, bytes) < 0)
        require("write", (errno = failure.number) == 0);
}

/* Save a page: extend the previous piece, or start a new one. */
static void keep_page(struct template_mapping *mapping, uint64_t address)
{
    static const char zeros[TEMPLATE_PAGE];
    char page[TEMPLATE_PAGE];
    read_remote(address, page, sizeof page);
    if (mapping->source == TEMPLATE_ANONYMOUS && memcmp(page, zeros, sizeof page) == 0)
        return;
    struct template_piece *last = mapping->pieces > 0 ? &pieces[head.pieces - 1] : NULL;
    if (last == NULL || last->address + last->bytes != address) {
        if (head.pieces == PIECES)
            die("its memory is in too many pieces");
        last = &pieces[head.pieces++];
        *last = (struct template_piece){address, 0};
        ++mapping->pieces;
    }
    write_out(page, sizeof page, output_bytes);
    last->bytes += sizeof page;
    output_bytes += sizeof page;
}

/* Save a file mapping as a whole, instead of its modified pages. */
static void keep_whole(struct template_mapping *mapping)
{
    mapping->contents += TEMPLATE_PAGE; /* the gap keeps the kernel from merging neighbouring mappings */
    output_bytes = mapping->contents;
    head.pieces = mapping->first_piece;
    mapping->pieces = 0;
    mapping->source = TEMPLATE_WRITTEN;
    for (uint64_t address = mapping->start; address < mapping->end; address += TEMPLATE_PAGE)
        keep_page(mapping, address);
}

/* Save the contents of a mapping that differ from zeros or from its file. */
static void keep_contents(struct template_mapping *mapping, int page_map)
{
    uint64_t pages[PAGES_AT_ONCE], all_bytes = mapping->end - mapping->start;
    for (uint64_t address = mapping->start; address < mapping->end;) {
        uint64_t count = (mapping->end - address) / TEMPLATE_PAGE;
        size_t bytes = (count < PAGES_AT_ONCE ? count : PAGES_AT_ONCE) * sizeof *pages;
        require("pagemap", pread(page_map, pages, bytes, (off_t)(address / TEMPLATE_PAGE * sizeof *pages)) == (long)bytes);
        for (size_t index = 0; index < bytes / sizeof *pages; ++index, address += TEMPLATE_PAGE) {
            bool is_files = mapping->source == TEMPLATE_FILE && (pages[index] & PAGE_OF_FILE);
            if ((pages[index] & (PAGE_PRESENT | PAGE_SWAPPED)) && !is_files)
                keep_page(mapping, address);
        }
    }
    bool ends_in_file = mapping->file_offset + all_bytes < mapping->file_bytes + TEMPLATE_PAGE; /* beyond: unreadable */
    if (mapping->source == TEMPLATE_FILE && ends_in_file && (output_bytes - mapping->contents) * 2 >= all_bytes)
        keep_whole(mapping);
}

/* Determine the source of a mapping. Returns whether it has contents to save. */
static bool find_source(struct template_mapping *mapping, const char *name, const char *flags)
{
    static const char *const refused[] = {"ht", "io", "pf", "lo", "um", "uw", "wf", "ss"};
    bool is_shared = mapping->flags & MAP_SHARED;
    struct stat status;
    if (strncmp(name, "[v", 2) == 0) { /* vvar, vvar_vclock, vdso */
        mapping->source = TEMPLATE_KERNEL;
        if (head.kernel == 0)
            head.kernel = mapping->start;
        return false;
    }
    if (has_flag(flags, "dp")) { /* for vgetrandom(): random numbers that must not be drawn twice. It is "wf" too */
        mapping->source = TEMPLATE_ANONYMOUS;
        mapping->flags = MAP_DROPPABLE;
        return false;
    }
    for (size_t index = 0; index < sizeof refused / sizeof *refused; ++index)
        if (has_flag(flags, refused[index]))
            die("it has unsupported memory");
    if (is_shared && (mapping->protection & PROT_WRITE))
        die("it shares memory");
    mapping->not_forked = has_flag(flags, "dc");
    if (has_flag(flags, "nr"))
        mapping->flags |= MAP_NORESERVE;
    if (strcmp(name, "[stack]") == 0) {
        mapping->source = TEMPLATE_STACK;
        head.stack_end = mapping->end;
    } else if (has_flag(flags, "gd")) {
        die("it has a second stack");
    } else if (*name != '/') {
        mapping->source = TEMPLATE_ANONYMOUS;
    } else {
        mapping->source = TEMPLATE_FILE;
        mapping->path = keep_path(name);
        require(name, stat(name, &status) == 0);
        mapping->file_bytes = (uint64_t)status.st_size;
        mapping->file_modified_ns = (uint64_t)status.st_mtim.tv_sec * 1000000000 + (uint64_t)status.st_mtim.tv_nsec;
        mapping->file_changed_ns = (uint64_t)status.st_ctim.tv_sec * 1000000000 + (uint64_t)status.st_ctim.tv_nsec;
    }
    return !is_shared;
}

/* Parse the first line of a mapping. Returns its name, or "". Source: proc(5), /proc/PID/maps. */
static const char *parse_mapping(const char *line, struct template_mapping *mapping)
{
    const char *start = line, *permissions = word_at(line, 1), *offset = word_at(line, 2);
    *mapping = (struct template_mapping){.start = hexadecimal(&start), .file_offset = hexadecimal(&offset)};
    ++start;
    mapping->end = hexadecimal(&start);
    mapping->protection = (permissions[0] == 'r' ? PROT_READ : 0U) | (permissions[1] == 'w' ? PROT_WRITE : 0U) |
                          (permissions[2] == 'x' ? PROT_EXEC : 0U);
    mapping->flags = permissions[3] == 's' ? MAP_SHARED : MAP_PRIVATE;
    return word_at(line, 5);
}

/* Save all mappings with their contents. */
static void capture_memory(void)
{
    struct template_mapping mapping = {0};
    char name[PATH_MAX] = "";
    const char *line;
    int page_map = open_at(proc_folder(), proc_path((uint64_t)interpreter, "pagemap"), O_RDONLY, 0);
    require("pagemap", page_map >= 0);
    require("smaps", (errno = lines_open(proc_path((uint64_t)interpreter, "smaps"))) == 0);
    while ((line = lines_next()) != NULL) {
        bool is_first = (*line >= '0' && *line <= '9') || (*line >= 'a' && *line <= 'f');
        if (is_first)
            strncpy(name, parse_mapping(line, &mapping), sizeof name - 1);
        if (strncmp(line, "ProtectionKey:", strlen("ProtectionKey:")) == 0 && number_at(line, 1) != 0)
            die("it uses memory protection keys");
        if (strncmp(line, "VmFlags:", strlen("VmFlags:")) != 0 || strcmp(name, "[vsyscall]") == 0)
            continue;
        if (head.mappings == MAPPINGS)
            die("it has too many mappings");
        mapping.first_piece = head.pieces;
        mapping.contents = output_bytes;
        if (find_source(&mapping, name, line))
            keep_contents(&mapping, page_map);
        mappings[head.mappings++] = mapping;
    }
    require("smaps", (errno = lines_close()) == 0);
    close(page_map);
}

/* Find free space for the restorer, as low as possible. */
static void find_room(void)
{
    head.room = 1ULL << 36;
    for (uint32_t index = 0; index < head.mappings && mappings[index].start < head.room + TEMPLATE_ROOM_BYTES; ++index)
        if (mappings[index].end > head.room)
            head.room = mappings[index].end;
}

/* Return the number after a name in a file of /proc, 0 if it is missing. */
static uint64_t value_of(const char *listing, const char *name, int base)
{
    const char *found = strstr(listing, name);
    return found == NULL ? 0 : strtoull(found + strlen(name), NULL, base);
}

/* Save the data in a pipe. This consumes it, but the interpreter never resumes. */
static void capture_pipe(int folder, const char *name, struct template_descriptor *kept)
{
    char more;
    if ((kept->flags & O_ACCMODE) != O_RDONLY)
        return;
    int pipe = open_at(folder, name, O_RDONLY | O_NONBLOCK, 0);
    require("pipe", pipe >= 0);
    long got = read(pipe, &kept->value, sizeof kept->value);
    require("pipe", got >= 0 || errno == EAGAIN);
    kept->bytes = got > 0 ? (uint32_t)got : 0;
    if (kept->bytes == sizeof kept->value && read(pipe, &more, 1) > 0)
        die("it has a pipe with too much data");
    close(pipe);
}

/* Save the entries of an epoll instance. Source: proc(5), /proc/PID/fdinfo; epoll_ctl(2). */
static void capture_watches(uint32_t epoll, const char *about)
{
    for (const char *line = strstr(about, "tfd:"); line != NULL; line = strstr(line + 1, "tfd:")) {
        if (head.watches == TEMPLATE_WATCHES)
            die("it watches too many files");
        head.watch[head.watches++] = (struct template_watch){
            .epoll = epoll,
            .number = (uint32_t)value_of(line, "tfd:", 10),
            .events = (uint32_t)value_of(line, "events:", 16),
            .data = value_of(line, "data:", 16),
            .inode = value_of(line, "ino:", 16)};
    }
}

/* Save a file descriptor. Source: proc(5), /proc/PID/fdinfo. */
static bool capture_descriptor(int folder, const struct linux_dirent64 *entry, void *context)
{
    const char *name = entry->d_name;
    static char about[8192];
    char target[PATH_MAX], number[sizeof "fdinfo/" + 20];
    (void)context;
    uint32_t which = (uint32_t)number_at(name, 0);
    if (which <= 2 || which == PROTOCOL_GATE)
        return true;
    long length = readlinkat(folder, name, target, sizeof target - 1);
    require("fd", length >= 0);
    target[length] = '\0';
    read_proc_file(strncat(strcpy(number, "fdinfo/"), name, 20), about, sizeof about);
    if (strlen(about) == sizeof about - 1)
        die("it watches too many files");
    if (head.descriptors == TEMPLATE_DESCRIPTORS)
        die("it has too many open files");
    struct stat status;
    require("fd", fstatat(folder, name, &status, 0) == 0);
    struct template_descriptor *kept = &head.descriptor[head.descriptors++];
    *kept = (struct template_descriptor){
        .number = which, .flags = (uint32_t)value_of(about, "flags:", 8), .inode = status.st_ino};
    if (strcmp(target, "anon_inode:[eventfd]") == 0 && value_of(about, "eventfd-semaphore:", 10) == 0) {
        kept->kind = TEMPLATE_EVENT;
        kept->value = value_of(about, "eventfd-count:", 16);
    } else if (strcmp(target, "anon_inode:[eventpoll]") == 0) {
        kept->kind = TEMPLATE_EPOLL;
        capture_watches(which, about);
    } else if (strncmp(target, "pipe:[", strlen("pipe:[")) == 0) {
        kept->kind = TEMPLATE_PIPE;
        capture_pipe(folder, name, kept);
    } else {
        if (*target != '/' || stat(target, &status) < 0 || !(S_ISREG(status.st_mode) || strcmp(target, "/dev/null") == 0))
            die("it has opened something other than a file");
        kept->path = keep_text(target);
        kept->value = value_of(about, "pos:", 10);
    }
    return true;
}

/* Find the other end of each pipe, which must be unique and of the opposite direction. */
static void pair_pipes(void)
{
    for (uint32_t index = 0; index < head.descriptors; ++index) {
        struct template_descriptor *one = &head.descriptor[index];
        uint32_t ends = 0;
        for (uint32_t at = 0; one->kind == TEMPLATE_PIPE && at < head.descriptors; ++at) {
            const struct template_descriptor *other = &head.descriptor[at];
            if (at == index || other->kind != TEMPLATE_PIPE || other->inode != one->inode)
                continue;
            ends += ((one->flags ^ other->flags) & O_ACCMODE) == O_WRONLY ? 1 : 2;
            one->other = other->number;
        }
        if (one->kind == TEMPLATE_PIPE && ends != 1)
            die("it has a pipe to another process");
    }
}

/* Die if an epoll instance watches a file that is no longer open under that number. */
static void check_watches(void)
{
    for (uint32_t index = 0; index < head.watches; ++index) {
        uint32_t at = 0;
        while (at < head.descriptors && head.descriptor[at].number != head.watch[index].number)
            ++at;
        if (at == head.descriptors || head.descriptor[at].inode != head.watch[index].inode)
            die("it watches a closed file");
    }
}

/* Save the timers. Source: proc(5), /proc/PID/timers. */
static void capture_timers(void)
{
    char listing[2048];
    read_proc_file("timers", listing, sizeof listing);
    for (const char *here = listing; here != NULL && *here != '\0'; here = strstr(here + 1, "\nID: ")) {
        if (head.timers == TEMPLATE_TIMERS || value_of(here, "notify: signal/pid.", 10) != (uint64_t)interpreter)
            die("it has unsupported timers");
        const char *value = strchr(strstr(here, "signal: "), '/');
        struct template_timer timer = {.number = (int32_t)value_of(here, "ID: ", 10),
                                       .clock = (int32_t)value_of(here, "ClockID: ", 10),
                                       .signal = (int32_t)value_of(here, "signal: ", 10),
                                       .value = value == NULL ? 0 : strtoull(value + 1, NULL, 16)};
        uint32_t at = head.timers++; /* sort them: the kernel numbers timers in creation order, and lists them in another */
        for (; at > 0 && head.timer[at - 1].number > timer.number; --at)
            head.timer[at] = head.timer[at - 1];
        head.timer[at] = timer;
    }
}

/* Save the file descriptors. */
static void capture_descriptors(void)
{
    static struct pairs processes;
    if (!proc_list(&processes) || processes.used != PROCESSES)
        die("it has started a program");
    each_proc_entry("fd", capture_descriptor, NULL);
    pair_pipes();
    check_watches();
}

/* Save the address of random numbers that must be fresh in each restore, from a file that the interpreter may have left. */
static void capture_random(void)
{
    char line[64];
    if (read_file(AT_FDCWD, PROTOCOL_RANDOM, line, sizeof line) < 0)
        return;
    head.random = number_at(line, 0);
    head.random_bytes = number_at(line, 1);
    if (head.random == 0 || head.random_bytes == 0 || head.random_bytes > TEMPLATE_RANDOM_BYTES)
        die("it requests random numbers at an invalid address");
}

static void write_template(void)
{
    char path[PATH_MAX];
    long length = readlinkat(proc_folder(), proc_path((uint64_t)interpreter, "exe"), path, sizeof path - 1);
    require("exe", length >= 0);
    path[length] = '\0';
    head.interpreter = keep_text(path);
    head.magic = TEMPLATE_MAGIC;
    const struct {
        const void *data;
        size_t bytes;
    } tables[] = {{&head, sizeof head},
                  {mappings, head.mappings * sizeof *mappings},
                  {pieces, head.pieces * sizeof *pieces},
                  {text, text_bytes}};
    for (size_t index = 0; index < sizeof tables / sizeof *tables; ++index)
        head.tables_bytes += (uint32_t)tables[index].bytes;
    uint64_t at = TEMPLATE_AT;
    for (size_t index = 0; index < sizeof tables / sizeof *tables; at += tables[index++].bytes)
        write_out(tables[index].data, tables[index].bytes, at);
    write_out(restorer, sizeof restorer, 0); /* last: without it the file is invalid */
}

/* Trace the interpreter to where it waits, and write its template. traced_pipe: report there that it may start. */
static _Noreturn void capture(const char *main_file, bool other_pid, int traced_pipe)
{
    int persona = personality(QUERY_PERSONALITY);
    if (persona < 0 || !(persona & ADDR_NO_RANDOMIZE))
        die("address randomization cannot be disabled here");
    traced = &head.thread[0];
    traced->number = (uint32_t)interpreter;
    seize();
    stop();
    require("write", write(traced_pipe, "", 1) == 1);
    run_until_waiting(main_file, other_pid);
    open_memory();
    capture_registers();
    stop_threads(&head);
    skip_call();
    capture_descriptors();
    capture_timers();
    capture_random();
    unlink(PROTOCOL_TEMPLATE); /* the interpreter has stopped and is alone, so no other file can appear here */
    output = open_at(AT_FDCWD, PROTOCOL_TEMPLATE, O_WRONLY | O_CREAT | O_EXCL, 0755);
    require("open", output >= 0);
    output_bytes = TEMPLATE_AT + TEMPLATE_TABLES_BYTES;
    capture_settings();
    capture_layout();
    capture_memory();
    find_room();
    write_template();
    _exit(0); /* and the interpreter is killed */
}

void start_capture(const char *main_file, bool other_pid, int error_stream)
{
    int ends[2], gate[2];
    char said;
    interpreter = getpid();
    if (pipe2(ends, O_CLOEXEC) < 0 || pipe2(gate, O_CLOEXEC) < 0)
        _exit(1);
    prctl(PR_SET_DUMPABLE, 1); /* a fork of PID 1 is not, until its execve(2) */
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY); /* for Yama, because the tracer is not an ancestor; fails without Yama */
    pid_t tracer = fork();
    if (tracer == 0) {
        prctl(PR_SET_DUMPABLE, 0); /* the interpreter must not trace us: we have PID 1's memory and descriptors */
        close(ends[0]);
        close(gate[0]); /* but keep the write end open as long as we live */
        dup2(error_stream, 2);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        signal(SIGXFSZ, SIG_IGN); /* a file that is too large is reported as an error */
        capture(main_file, other_pid, ends[1]);
    }
    close(ends[1]);
    close(gate[1]);
    if (tracer < 0 || read(ends[0], &said, 1) != 1)
        _exit(1);
    if (*main_file == '\0' && dup2(gate[0], PROTOCOL_GATE) < 0)
        _exit(1);
}
#endif
