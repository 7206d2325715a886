/* The restorer: the executable part of a template. See template.h.
 *
 * It runs as the program of a sandbox, without further privileges, and turns its own process into the captured interpreter: it
 * moves itself to free memory, restores mappings, contents and kernel settings, and jumps to the system call in which the
 * interpreter waited. If anything differs from the capture it exits, and PID 1 starts the interpreter normally.
 *
 * It has no C library and no writable data, because its code is copied to another address while it runs. */
#include <elf.h>
#include <fcntl.h>
#include <linux/auxvec.h>
#include <linux/mman.h>
#include <linux/prctl.h>
#include <linux/sched.h>
#include <linux/stat.h>
#include <signal.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/syscall.h>

#include "../protocol.h"
#include "../template.h"

enum {
    FAILED = 127,
    POPULATE_AT_LEAST_BYTES = 2 * TEMPLATE_PAGE,
    PIECES_AT_ONCE = 1024, /* the kernel's IOV_MAX */
    STACK_AT_START_BYTES = 1 << 20, /* more than the kernel puts on the stack */
    SET_MASK = 2,                   /* SIG_SETMASK */
    FROM_START = 0,                 /* SEEK_SET */
    STACK_IN_USE_BYTES = 128, /* below the stack pointer; the ABI of x86-64, "red zone" */
    OPENING = O_CREAT | O_EXCL | O_TRUNC,
};

#define ARCH_SET_FS 0x1002 /* arch_prctl(2) */

/* The start of this program, its ELF header. */
extern const char image[] __asm__("__ehdr_start") __attribute__((visibility("hidden")));

/* State of the copied program, on its stack. */
struct work {
    const struct template_head *head;
    const struct template_mapping *mappings;
    const struct template_piece *pieces;
    const char *text;
    uint64_t vdso_at; /* its current address */
    uint64_t image, image_bytes; /* the original, loaded by the kernel */
    int file; /* with the memory contents */
    int mapped; /* the file of the last file mapping, and its path */
    uint32_t mapped_path;
};

static long call(long number, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f)
{
    long returned;
    register uint64_t fourth __asm__("r10") = d;
    register uint64_t fifth __asm__("r8") = e;
    register uint64_t sixth __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(returned)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(fourth), "r"(fifth), "r"(sixth)
                     : "rcx", "r11", "memory");
    return returned;
}

static _Noreturn void die(void)
{
    for (;;)
        call(SYS_exit_group, FAILED, 0, 0, 0, 0, 0);
}

/* Make a system call that must not fail. */
static long require(long number, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f)
{
    long returned = call(number, a, b, c, d, e, f);
    if (returned < 0 && returned > -TEMPLATE_PAGE)
        die();
    return returned;
}

/* Compilers call it for structure copies. volatile: else the loop would become a call of itself. */
void *memcpy(void *to, const void *from, size_t bytes)
{
    for (size_t index = 0; index < bytes; ++index)
        ((volatile char *)to)[index] = ((const char *)from)[index];
    return to;
}

static uint64_t address_of(const void *pointer)
{
    return (uint64_t)(uintptr_t)pointer;
}

/* The same for a buffer that a call fills. */
static uint64_t address_for(void *pointer)
{
    return (uint64_t)(uintptr_t)pointer;
}

static int same(const char *one, const char *other)
{
    while (*one != '\0' && *one == *other)
        ++one, ++other;
    return *one == *other;
}

/* Move the kernel's mappings, which are adjacent. from, to: addresses of the first one. */
static void move_kernel(const struct work *work, uint64_t from, uint64_t to)
{
    for (uint32_t index = 0; index < work->head->mappings; ++index) {
        const struct template_mapping *mapping = &work->mappings[index];
        if (mapping->source != TEMPLATE_KERNEL)
            continue;
        uint64_t bytes = mapping->end - mapping->start, offset = mapping->start - work->head->kernel;
        require(SYS_mremap, from + offset, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, to + offset, 0);
    }
}

static uint64_t nanoseconds(const struct statx_timestamp *time)
{
    return (uint64_t)time->tv_sec * 1000000000 + time->tv_nsec;
}

/* Open the file of a mapping. It must be unchanged; ctime is compared too because an upgrade may set mtime. */
static int open_file(const struct template_mapping *mapping, const char *path)
{
    struct statx status;
    int file = (int)require(SYS_openat, (uint64_t)AT_FDCWD, address_of(path), O_RDONLY | O_CLOEXEC, 0, 0, 0);
    require(SYS_statx, (uint64_t)file, address_of(""), AT_EMPTY_PATH, STATX_BASIC_STATS, address_for(&status), 0);
    if (status.stx_size != mapping->file_bytes || nanoseconds(&status.stx_mtime) != mapping->file_modified_ns ||
        nanoseconds(&status.stx_ctime) != mapping->file_changed_ns)
        die();
    return file;
}

static void close_mapped(struct work *work)
{
    if (work->mapped_path != 0)
        call(SYS_close, (uint64_t)work->mapped, 0, 0, 0, 0, 0);
    work->mapped_path = 0;
}

/* Return the file of a mapping, often that of the previous one. */
static uint64_t file_of(struct work *work, const struct template_mapping *mapping)
{
    if (mapping->path != work->mapped_path) {
        close_mapped(work);
        work->mapped = open_file(mapping, work->text + mapping->path);
        work->mapped_path = mapping->path;
    }
    return (uint64_t)work->mapped;
}

/* Restore the pieces of a mapping. */
static void fill(const struct work *work, const struct template_mapping *mapping)
{
    uint64_t contents = mapping->contents;
    for (uint32_t index = 0, count; index < mapping->pieces; index += count) {
        const struct template_piece *piece = &work->pieces[mapping->first_piece + index];
        uint64_t bytes = 0;
        for (count = 0; count < PIECES_AT_ONCE && index + count < mapping->pieces; bytes += piece[count++].bytes)
            if (piece[count].bytes >= POPULATE_AT_LEAST_BYTES) /* one call instead of a page fault for each page */
                call(SYS_madvise, piece[count].address, piece[count].bytes, MADV_POPULATE_WRITE, 0, 0, 0);
        if (require(SYS_preadv, (uint64_t)work->file, address_of(piece), count, contents, 0, 0) != (long)bytes)
            die();
        contents += bytes;
    }
}

static void restore_mapping(struct work *work, const struct template_mapping *mapping)
{
    uint64_t bytes = mapping->end - mapping->start;
    int is_filled = mapping->pieces > 0 && mapping->source != TEMPLATE_WRITTEN;
    uint32_t protection = mapping->protection | (is_filled ? PROT_WRITE : 0);
    if (mapping->source == TEMPLATE_STACK) {
        *(volatile char *)mapping->start; /* touching it makes the stack grow */
    } else if (mapping->source == TEMPLATE_ANONYMOUS) {
        require(SYS_mmap, mapping->start, bytes, protection, mapping->flags | MAP_ANONYMOUS | MAP_FIXED, ~0UL, 0);
    } else if (mapping->source == TEMPLATE_FILE) {
        require(SYS_mmap, mapping->start, bytes, protection, mapping->flags | MAP_FIXED, file_of(work, mapping),
                mapping->file_offset);
    } else if (mapping->source == TEMPLATE_WRITTEN) {
        require(SYS_mmap, mapping->start, bytes, protection, mapping->flags | MAP_FIXED, (uint64_t)work->file, mapping->contents);
    }
    if (is_filled)
        fill(work, mapping);
    if (mapping->not_forked)
        require(SYS_madvise, mapping->start, bytes, MADV_DONTFORK, 0, 0, 0);
    if (protection != mapping->protection)
        require(SYS_mprotect, mapping->start, bytes, mapping->protection, 0, 0, 0);
}

/* Give a descriptor its original number and flags. */
static void renumber(uint64_t got, const struct template_descriptor *wanted)
{
    if (got == wanted->number)
        return;
    require(SYS_dup3, got, wanted->number, wanted->flags & O_CLOEXEC, 0, 0, 0);
    call(SYS_close, got, 0, 0, 0, 0, 0);
}

static const struct template_descriptor *descriptor_of(const struct template_head *head, uint64_t number)
{
    for (uint32_t index = 0; index < head->descriptors; ++index)
        if (head->descriptor[index].number == number)
            return &head->descriptor[index];
    die();
}

/* Create a pipe with both ends in the interpreter. First at high numbers, because each end may occupy the other's number. */
static void restore_pipe(const struct template_descriptor *one, const struct template_descriptor *other)
{
    int ends[2];
    const struct template_descriptor *wanted[] = {(one->flags & O_ACCMODE) == O_RDONLY ? one : other,
                                                  (one->flags & O_ACCMODE) == O_RDONLY ? other : one};
    require(SYS_pipe2, address_for(ends), 0, 0, 0, 0, 0);
    for (int end = 0; end < 2; ++end) {
        int got = (int)require(SYS_fcntl, (uint64_t)ends[end], F_DUPFD, TEMPLATE_CONTENTS, 0, 0, 0);
        call(SYS_close, (uint64_t)ends[end], 0, 0, 0, 0, 0);
        ends[end] = got;
    }
    require(SYS_write, (uint64_t)ends[1], address_of(&wanted[0]->value), wanted[0]->bytes, 0, 0, 0);
    for (int end = 0; end < 2; ++end) {
        if (wanted[end]->flags & O_NONBLOCK)
            require(SYS_fcntl, (uint64_t)ends[end], F_SETFL, O_NONBLOCK, 0, 0, 0);
        renumber((uint64_t)ends[end], wanted[end]);
    }
}

static void restore_descriptor(const struct work *work, const struct template_descriptor *wanted)
{
    uint32_t flags = wanted->flags & (O_CLOEXEC | O_NONBLOCK);
    if (wanted->kind == TEMPLATE_PIPE) {
        if (wanted->number < wanted->other)
            restore_pipe(wanted, descriptor_of(work->head, wanted->other));
    } else if (wanted->kind == TEMPLATE_EVENT) {
        renumber((uint64_t)require(SYS_eventfd2, wanted->value, flags, 0, 0, 0, 0), wanted);
    } else if (wanted->kind == TEMPLATE_EPOLL) {
        renumber((uint64_t)require(SYS_epoll_create1, flags & O_CLOEXEC, 0, 0, 0, 0, 0), wanted);
    } else {
        uint64_t path = address_of(work->text + wanted->path);
        uint64_t got = (uint64_t)require(SYS_openat, (uint64_t)AT_FDCWD, path, wanted->flags & ~(uint32_t)OPENING, 0, 0, 0);
        require(SYS_lseek, got, wanted->value, FROM_START, 0, 0, 0);
        renumber(got, wanted);
    }
}

/* Restore all descriptors, lowest number first. */
static void restore_descriptors(const struct work *work)
{
    const struct template_head *head = work->head;
    for (uint32_t index = 0; index < head->descriptors; ++index)
        restore_descriptor(work, &head->descriptor[index]);
    for (uint32_t index = 0; index < head->watches; ++index) {
        const struct template_watch *watch = &head->watch[index];
        struct epoll_event event = {.events = watch->events, .data.u64 = watch->data};
        require(SYS_epoll_ctl, watch->epoll, EPOLL_CTL_ADD, watch->number, address_of(&event), 0, 0);
    }
}

/* Restore the kernel's settings of the process. */
static void restore_settings(const struct work *work)
{
    const struct template_head *head = work->head;
    struct template_layout layout = head->layout;
    layout.auxv = address_of(head->auxv);
    /* It may fail: without CONFIG_CHECKPOINT_RESTORE the heap grows elsewhere and /proc/self/cmdline is empty. */
    call(SYS_prctl, PR_SET_MM, PR_SET_MM_MAP, address_of(&layout), sizeof layout, 0, 0);
    for (uint64_t number = 1; number <= TEMPLATE_SIGNALS; ++number)
        if (head->actions[number].handler != 0)
            require(SYS_rt_sigaction, number, address_of(&head->actions[number]), 0, sizeof(uint64_t), 0, 0);
    for (uint32_t index = 0; index < head->timers; ++index) {
        const struct template_timer *wanted = &head->timer[index];
        struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = wanted->signal};
        int number;
        event.sigev_value.sival_ptr = (void *)wanted->value;
        require(SYS_timer_create, (uint64_t)wanted->clock, address_of(&event), address_for(&number), 0, 0, 0);
        if (number != wanted->number)
            die();
    }
    require(SYS_personality, 0, 0, 0, 0, 0, 0); /* programs that it starts have random addresses again */
}

/* Restore the kernel's settings of this thread. */
static void restore_thread(const struct template_thread *thread)
{
    require(SYS_sigaltstack, address_of(&thread->signal_stack), 0, 0, 0, 0, 0);
    require(SYS_set_robust_list, thread->robust_list[0], thread->robust_list[1], 0, 0, 0, 0);
    require(SYS_set_tid_address, thread->tid_address, 0, 0, 0, 0, 0);
    if (thread->rseq != 0)
        require(SYS_rseq, thread->rseq, thread->rseq_bytes, 0, thread->rseq_signature, 0, 0);
    require(SYS_prctl, PR_SET_NAME, address_of(thread->command), 0, 0, 0, 0);
    require(SYS_arch_prctl, ARCH_SET_FS, thread->registers.fs_base, 0, 0, 0, 0);
    require(SYS_rt_sigprocmask, SET_MASK, address_of(&thread->signal_mask), 0, sizeof(uint64_t), 0, 0);
    __asm__ volatile("ldmxcsr %0\n fldcw %1" : : "m"(thread->mxcsr), "m"(thread->x87_control));
}

#define FIELD(name) [name] "i"(__builtin_offsetof(struct user_regs_struct, name))

/* Load the registers and jump. System calls clobber rcx, so it can hold the address. */
static _Noreturn void jump(const struct user_regs_struct *registers)
{
    __asm__ volatile("mov %c[r15](%%rcx), %%r15\n mov %c[r14](%%rcx), %%r14\n mov %c[r13](%%rcx), %%r13\n mov %c[r12](%%rcx), %%r12\n"
                     "mov %c[rbp](%%rcx), %%rbp\n mov %c[rbx](%%rcx), %%rbx\n mov %c[r10](%%rcx), %%r10\n mov %c[r9](%%rcx), %%r9\n"
                     "mov %c[r8](%%rcx), %%r8\n mov %c[rax](%%rcx), %%rax\n mov %c[rdx](%%rcx), %%rdx\n mov %c[rsi](%%rcx), %%rsi\n"
                     "mov %c[rdi](%%rcx), %%rdi\n mov %c[rsp](%%rcx), %%rsp\n"
                     "mov %c[rip](%%rcx), %%rcx\n jmp *%%rcx"
                     :
                     : "c"(registers), FIELD(r15), FIELD(r14), FIELD(r13), FIELD(r12), FIELD(rbp), FIELD(rbx), FIELD(r10),
                       FIELD(r9), FIELD(r8), FIELD(rax), FIELD(rdx), FIELD(rsi), FIELD(rdi), FIELD(rsp), FIELD(rip)
                     : "memory");
    __builtin_unreachable();
}

/* The start function of a thread, on its original stack. */
static _Noreturn void resume_thread(const struct template_thread *thread)
{
    restore_thread(thread);
    jump(&thread->registers);
}

/* The start function of a thread that only uses up a number. It has no stack. */
__attribute__((naked)) static void exit_thread(const struct template_thread *thread)
{
    (void)thread;
    __asm__ volatile("mov %0, %%eax\n xor %%edi, %%edi\n syscall" : : "i"(SYS_exit));
}

/* Start a thread with a function and its argument, which is at the top of its stack. Returns its thread id. */
static uint32_t start_thread(void (*function)(const struct template_thread *), struct template_thread *thread)
{
    long returned;
    uint64_t stack = address_for(thread) - sizeof(uint64_t); /* as after a call */
    __asm__ volatile("syscall\n test %%rax, %%rax\n jnz 1f\n mov %3, %%rdi\n jmp *%4\n 1:"
                     : "=a"(returned)
                     : "a"(SYS_clone),
                       "D"((uint64_t)(CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM)),
                       "r"(thread), "r"(function), "S"(stack), "d"(0UL)
                     : "rcx", "r11", "memory");
    if (returned < 0)
        die();
    return (uint32_t)returned;
}

/* Create the threads with their original ids, which C libraries cache. Gaps were the tracer, or threads that ended. */
static void restore_threads(const struct template_head *head)
{
    uint32_t number = (uint32_t)call(SYS_gettid, 0, 0, 0, 0, 0, 0);
    if (head->threads > 1 && number != head->thread[0].number)
        die();
    for (uint32_t index = 1; index < head->threads; ++index) {
        uint64_t unused = (head->thread[index].registers.rsp - STACK_IN_USE_BYTES - sizeof(struct template_thread)) & ~15UL;
        struct template_thread *thread = (struct template_thread *)unused;
        *thread = head->thread[index];
        while (number + 1 < thread->number)
            number = start_thread(exit_thread, thread);
        number = start_thread((void (*)(const struct template_thread *))resume_thread, thread);
        if (number != thread->number)
            die();
    }
}

/* The restore, running in the copy of this program on its own stack. */
static _Noreturn void restore(struct work *work)
{
    const struct template_head *head = work->head;
    struct template_thread main = head->thread[0];
    require(SYS_munmap, work->image, work->image_bytes, 0, 0, 0, 0);
    uint64_t kernel_at = work->vdso_at - (head->vdso - head->kernel);
    uint64_t distance = kernel_at > head->kernel ? kernel_at - head->kernel : head->kernel - kernel_at;
    if (distance > 0 && distance < TEMPLATE_KERNEL_BYTES) { /* they may overlap */
        uint64_t between = head->room + TEMPLATE_ROOM_BYTES - TEMPLATE_KERNEL_BYTES;
        move_kernel(work, kernel_at, between);
        kernel_at = between;
    }
    if (distance > 0)
        move_kernel(work, kernel_at, head->kernel);
    for (uint32_t index = 0; index < head->mappings; ++index)
        restore_mapping(work, &work->mappings[index]);
    close_mapped(work);
    if (require(SYS_getrandom, head->random, head->random_bytes, 0, 0, 0, 0) != (long)head->random_bytes)
        die();
    restore_settings(work);
    call(SYS_close, (uint64_t)work->file, 0, 0, 0, 0, 0);
    restore_descriptors(work);
    restore_threads(head);
    require(SYS_munmap, address_of(head), head->tables_bytes, 0, 0, 0, 0);
    restore_thread(&main);
    require(SYS_write, PROTOCOL_RESTORED, address_of(""), 1, 0, 0, 0);
    call(SYS_close, PROTOCOL_RESTORED, 0, 0, 0, 0, 0);
    jump(&main.registers);
}

/* Return a value of the auxiliary vector. */
static uint64_t auxiliary(const uint64_t *vector, uint64_t type)
{
    for (; vector[0] != AT_NULL; vector += 2)
        if (vector[0] == type)
            return vector[1];
    die();
}

/* Copy the loaded segments of this program. Returns their extent. */
static uint64_t copy_image(char *to)
{
    const Elf64_Ehdr *file = (const void *)image;
    const Elf64_Phdr *segments = (const void *)(image + file->e_phoff);
    uint64_t first = ~0UL, end = 0;
    for (int pass = 0; pass < 2; ++pass) {
        for (unsigned index = 0; index < file->e_phnum; ++index) {
            const Elf64_Phdr *segment = &segments[index];
            if (segment->p_type != PT_LOAD)
                continue;
            if (pass == 0 && segment->p_vaddr < first)
                first = segment->p_vaddr;
            uint64_t offset = segment->p_vaddr - first;
            if (pass == 1 && offset + segment->p_filesz > end)
                end = offset + segment->p_filesz;
            if (pass == 1 && end <= TEMPLATE_AT)
                memcpy(to + offset, image + offset, segment->p_filesz);
        }
    }
    return end;
}

/* The entry point. stack: argument count, arguments, variables and auxiliary vector, as execve(2) leaves them. */
__attribute__((used)) static _Noreturn void start(const uint64_t *stack)
{
    struct template_head start; /* only the first fields are used */
    const uint64_t *variables = stack + stack[0] + 2, *vector = variables;
    while (*vector++ != 0)
        ;
    struct work work = {
        .vdso_at = auxiliary(vector, AT_SYSINFO_EHDR), .file = TEMPLATE_CONTENTS, .image = address_of(image)};
    uint64_t own = address_of("/proc/self/exe");
    uint64_t file = (uint64_t)require(SYS_openat, (uint64_t)AT_FDCWD, own, O_RDONLY | O_CLOEXEC, 0, 0, 0);
    require(SYS_pread64, file, address_for(&start), sizeof start, TEMPLATE_AT, 0, 0);
    if (start.magic != TEMPLATE_MAGIC || start.tables_bytes > TEMPLATE_TABLES_BYTES)
        die();
    uint64_t code = start.room, tables = code + TEMPLATE_AT + TEMPLATE_STACK_BYTES;
    require(SYS_mmap, code, TEMPLATE_AT + TEMPLATE_STACK_BYTES, PROT_READ | PROT_WRITE,
         MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, ~0UL, 0);
    require(SYS_mmap, tables, start.tables_bytes, PROT_READ, MAP_PRIVATE | MAP_FIXED_NOREPLACE, file, TEMPLATE_AT);
    call(SYS_close, file, 0, 0, 0, 0, 0);
    work.head = (const void *)tables;
    work.mappings = (const void *)(work.head + 1);
    work.pieces = (const void *)(work.mappings + start.mappings);
    work.text = (const void *)(work.pieces + start.pieces);
    if (stack[0] == 0 || !same((const char *)stack[1], TEMPLATE_COMMAND)) {
        call(SYS_execve, address_of(work.text + start.interpreter), address_of(stack + 1), address_of(variables), 0, 0, 0);
        die();
    }
    if (start.stack_end - address_of(stack) > STACK_AT_START_BYTES) /* addresses are random */
        die();
    work.image_bytes = copy_image((char *)code);
    require(SYS_mprotect, code, TEMPLATE_AT, PROT_READ | PROT_EXEC, 0, 0, 0);
    struct work *there = (struct work *)tables - 1;
    *there = work;
    uint64_t entry = code + (uint64_t)((const char *)(uintptr_t)restore - image);
    uint64_t top = (address_of(there) & ~15UL) - 8; /* as after a call */
    __asm__ volatile("mov %0, %%rsp\n jmp *%1" : : "r"(top), "r"(entry), "D"(there) : "memory");
    __builtin_unreachable();
}

__attribute__((naked, used)) void _start(void)
{
    __asm__ volatile("mov %rsp, %rdi\n and $-16, %rsp\n call start");
}
