/* A template: an interpreter that has started and waits, as a file. Its memory, registers and settings, and the program that
 * makes a process of them again, the restorer.
 *
 * The file begins as an ELF executable: the restorer, which the kernel loads, then at TEMPLATE_AT this head, mappings, pieces and
 * text; the contents of memory follow. It is good for the machine that made it until that starts anew, and for sandboxes
 * with the same file tree. Addresses are those that a process has without randomization, so that in another one they are free. */
#ifndef FIREBOX_TEMPLATE_H
#define FIREBOX_TEMPLATE_H

#include <stdint.h>
#include <sys/user.h>

#define TEMPLATE_MAGIC 0x74786246U /* "Fbxt" */

/* The restorer's descriptor of the template. What is executed is a copy of all that comes before the contents of memory:
 * /proc/self/exe leads there, and by a file that is the same in several sandboxes their programs could watch and signal to each
 * other. */
#define TEMPLATE_CONTENTS 202

/* What the restorer is started as. By any other name it starts the interpreter itself: /proc/self/exe leads here. */
#define TEMPLATE_COMMAND "firebox-restore"

enum {
    TEMPLATE_PAGE = 4096,
    TEMPLATE_AT = 16 << 10,
    TEMPLATE_SIGNALS = 64,
    TEMPLATE_AUXV = 64,
    TEMPLATE_THREADS = 16,
    TEMPLATE_THREAD_NUMBERS = 64, /* how far the last thread's number may be from the first one's */
    TEMPLATE_DESCRIPTORS = 32,
    TEMPLATE_WATCHES = 32,
    TEMPLATE_TIMERS = 4,
    TEMPLATE_RANDOM_BYTES = 256,
    /* The restorer's place while it works: its code, its stack, the tables, and the kernel's pages on their way. */
    TEMPLATE_STACK_BYTES = 16 << 10,
    TEMPLATE_TABLES_BYTES = 1 << 20,
    TEMPLATE_KERNEL_BYTES = 1 << 20,
    TEMPLATE_ROOM_BYTES = TEMPLATE_AT + TEMPLATE_STACK_BYTES + TEMPLATE_TABLES_BYTES + TEMPLATE_KERNEL_BYTES,
};

/* Of the kernel, not of a C library. Source: rt_sigaction(2), sigaltstack(2). */
struct template_action {
    uint64_t handler, flags, restorer, mask;
};

struct template_stack {
    uint64_t address, flags, bytes;
};

/* Where the kernel believes the parts of a program to be: `struct prctl_mm_map`, PR_SET_MM_MAP of prctl(2). */
struct template_layout {
    uint64_t start_code, end_code, start_data, end_data, start_brk, brk, start_stack, arg_start, arg_end, env_start, env_end, auxv;
    uint32_t auxv_bytes, program;
};

/* Where memory comes from. KERNEL: the vDSO and its data, which are there already, in another place. WRITTEN: a file of which most
 * was written to: all of it is one piece, which is mapped and not copied, so that pages are copied when a program writes to them. */
enum template_source { TEMPLATE_ANONYMOUS, TEMPLATE_FILE, TEMPLATE_WRITTEN, TEMPLATE_STACK, TEMPLATE_KERNEL };

/* A mapping, as /proc/PID/maps has it. path: offset in the text, the same for neighbours of one file; file_*: of the file then, so
 * that another one is noticed. not_forked: MADV_DONTFORK. Its pieces are what it holds besides zeros or the file's own contents. */
struct template_mapping {
    uint64_t start, end, file_offset;
    uint32_t source, protection, flags, path;
    uint32_t not_forked, unused;
    uint32_t first_piece, pieces;
    uint64_t contents; /* where in this file those of its pieces lie, one after the other */
    uint64_t file_bytes, file_modified_ns, file_changed_ns;
};

/* A piece of memory, as preadv(2) takes it: a `struct iovec`. */
struct template_piece {
    uint64_t address, bytes;
};

enum template_kind { TEMPLATE_OPENED, TEMPLATE_EVENT, TEMPLATE_EPOLL, TEMPLATE_PIPE };

/* A descriptor of its own. path: of what was opened, an offset in the text; other: the number of a pipe's other end. value:
 * where in that file it is, what an eventfd counts, or what can be read from a pipe, as many bytes of it as `bytes` says. */
struct template_descriptor {
    uint32_t number, flags, kind, path, other, bytes;
    uint64_t value;
};

/* What an epoll instance watches. Source: epoll_ctl(2). */
struct template_watch {
    uint32_t epoll, number, events, unused;
    uint64_t data;
};

/* A timer that it has made and not set, and the signal that it would send. Source: timer_create(2). */
struct template_timer {
    int32_t number, clock, signal, unused;
    uint64_t value;
};

/* A thread that waits in a system call. number: its thread id, which is what it is in every sandbox. registers: so that it makes
 * that call again. */
struct template_thread {
    uint64_t robust_list[2], tid_address, rseq, signal_mask;
    struct template_stack signal_stack;
    struct user_regs_struct registers;
    uint32_t number, rseq_bytes, rseq_signature, mxcsr, x87_control, unused;
    char command[16];
};

/* thread: the first one is the main thread, and their numbers rise. */
struct template_head {
    uint32_t magic, tables_bytes; /* of head, mappings, pieces and text */
    uint32_t mappings, pieces;
    uint32_t unused, interpreter; /* path of the program, an offset in the text */
    uint32_t threads, descriptors, watches, timers;
    uint64_t random, random_bytes; /* what is filled with random numbers */
    uint64_t room; /* an address with TEMPLATE_ROOM_BYTES free from there on */
    uint64_t stack_end, kernel, vdso; /* where these are; kernel: the first of its mappings */
    struct template_action actions[TEMPLATE_SIGNALS + 1];
    struct template_layout layout; /* auxv: filled in by the restorer */
    uint64_t auxv[TEMPLATE_AUXV];
    struct template_descriptor descriptor[TEMPLATE_DESCRIPTORS];
    struct template_watch watch[TEMPLATE_WATCHES];
    struct template_timer timer[TEMPLATE_TIMERS];
    struct template_thread thread[TEMPLATE_THREADS];
};

#endif
