/* A template: a waiting interpreter as a file. It holds its memory, registers and settings, and the restorer, a program that
 * turns them into a process again.
 *
 * The file starts with the restorer, an ELF executable. At TEMPLATE_AT follow this head, mappings, pieces and text, then memory
 * contents. It is valid on the machine that created it until a reboot, and for sandboxes with the same file tree. Addresses are
 * those of a process without randomization, so they are free in another such process. */
#ifndef FIREBOX_TEMPLATE_H
#define FIREBOX_TEMPLATE_H

#include <stdint.h>
#include <sys/user.h>

#define TEMPLATE_MAGIC 0x74786246U /* "Fbxt" */

/* The restorer's descriptor of the template. The executed file is a copy of everything before the memory contents: /proc/self/exe
 * leads to it, and programs in several sandboxes could communicate through a shared file. */
#define TEMPLATE_CONTENTS 202

/* argv[0] of the restorer. With any other name it executes the interpreter: programs re-execute /proc/self/exe. */
#define TEMPLATE_COMMAND "firebox-restore"

enum {
    TEMPLATE_PAGE = 4096,
    TEMPLATE_AT = 16 << 10,
    TEMPLATE_SIGNALS = 64,
    TEMPLATE_AUXV = 64,
    TEMPLATE_THREADS = 16,
    TEMPLATE_THREAD_NUMBERS = 64, /* maximum distance of the last thread id from the first */
    TEMPLATE_DESCRIPTORS = 32,
    TEMPLATE_WATCHES = 32,
    TEMPLATE_TIMERS = 4,
    TEMPLATE_RANDOM_BYTES = 256,
    /* Memory of the restorer while it works: code, stack, tables, and the kernel's pages while they are moved. */
    TEMPLATE_STACK_BYTES = 16 << 10,
    TEMPLATE_TABLES_BYTES = 1 << 20,
    TEMPLATE_KERNEL_BYTES = 1 << 20,
    TEMPLATE_ROOM_BYTES = TEMPLATE_AT + TEMPLATE_STACK_BYTES + TEMPLATE_TABLES_BYTES + TEMPLATE_KERNEL_BYTES,
};

/* The kernel's structures, not those of a C library. Source: rt_sigaction(2), sigaltstack(2). */
struct template_action {
    uint64_t handler, flags, restorer, mask;
};

struct template_stack {
    uint64_t address, flags, bytes;
};

/* The kernel's record of a program's memory layout: `struct prctl_mm_map`, PR_SET_MM_MAP of prctl(2). */
struct template_layout {
    uint64_t start_code, end_code, start_data, end_data, start_brk, brk, start_stack, arg_start, arg_end, env_start, env_end, auxv;
    uint32_t auxv_bytes, program;
};

/* Where memory comes from. KERNEL: the vDSO and its data, which exist already, at another address. WRITTEN: a file mapping that
 * was mostly overwritten: it is stored as a whole and mapped copy-on-write. */
enum template_source { TEMPLATE_ANONYMOUS, TEMPLATE_FILE, TEMPLATE_WRITTEN, TEMPLATE_STACK, TEMPLATE_KERNEL };

/* A mapping of /proc/PID/maps. path: offset in the text, shared by neighbours with the same file. file_*: detect a changed file.
 * not_forked: MADV_DONTFORK. pieces: the contents that differ from zeros or from the file. */
struct template_mapping {
    uint64_t start, end, file_offset;
    uint32_t source, protection, flags, path;
    uint32_t not_forked, unused;
    uint32_t first_piece, pieces;
    uint64_t contents; /* offset of its pieces in the template, one after the other */
    uint64_t file_bytes, file_modified_ns, file_changed_ns;
};

/* A piece of memory: a `struct iovec` for preadv(2). */
struct template_piece {
    uint64_t address, bytes;
};

enum template_kind { TEMPLATE_OPENED, TEMPLATE_EVENT, TEMPLATE_EPOLL, TEMPLATE_PIPE };

/* An open file descriptor. path: offset in the text. other: the number of a pipe's other end. value: the file position, the
 * count of an eventfd, or the first `bytes` bytes in a pipe. inode: identifies it during the capture. */
struct template_descriptor {
    uint32_t number, flags, kind, path, other, bytes;
    uint64_t value, inode;
};

/* An entry of an epoll instance. inode: of the watched file, during the capture. Source: epoll_ctl(2). */
struct template_watch {
    uint32_t epoll, number, events, unused;
    uint64_t data, inode;
};

/* A timer that exists but is not armed, and its signal. Source: timer_create(2). */
struct template_timer {
    int32_t number, clock, signal, unused;
    uint64_t value;
};

/* A thread that waits in a system call. number: its thread id, the same in every sandbox. registers: set up to make that call
 * again. */
struct template_thread {
    uint64_t robust_list[2], tid_address, rseq, signal_mask;
    struct template_stack signal_stack;
    struct user_regs_struct registers;
    uint32_t number, rseq_bytes, rseq_signature, mxcsr, x87_control, unused;
    char command[16];
};

/* thread: the main thread first, in the order of thread ids. */
struct template_head {
    uint32_t magic, tables_bytes; /* of head, mappings, pieces and text */
    uint32_t mappings, pieces;
    uint32_t unused, interpreter; /* path of the program, an offset in the text */
    uint32_t threads, descriptors, watches, timers;
    uint64_t random, random_bytes; /* memory to fill with random numbers */
    uint64_t room; /* an address with TEMPLATE_ROOM_BYTES of free space */
    uint64_t stack_end, kernel, vdso; /* their addresses; kernel: of its first mapping */
    struct template_action actions[TEMPLATE_SIGNALS + 1];
    struct template_layout layout; /* auxv: filled in by the restorer */
    uint64_t auxv[TEMPLATE_AUXV];
    struct template_descriptor descriptor[TEMPLATE_DESCRIPTORS];
    struct template_watch watch[TEMPLATE_WATCHES];
    struct template_timer timer[TEMPLATE_TIMERS];
    struct template_thread thread[TEMPLATE_THREADS];
};

#endif
