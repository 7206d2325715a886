#include "capture_threads.h"

#ifdef __x86_64__

#include <errno.h>
#include <linux/futex.h>
#include <linux/ptrace.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>

#include "kernel.h"
#include "proc.h"
#include "tracing.h"

enum { TRIES = 500, PAUSE_NS = 1000000, RESTARTS_FIRST = 512, RESTARTS_LAST = 514, FOR_EVER = -1 };

/* Return whether an interrupted thread waits without a timeout in a system call that can be restarted.
 * Source: the kernel's include/linux/errno.h, ERESTARTSYS to ERESTARTNOHAND; ERESTART_RESTARTBLOCK is a wait with a timeout. */
static bool waits(const struct user_regs_struct *registers)
{
    long returned = (long)registers->rax;
    if (returned != -EINTR && (returned > -RESTARTS_FIRST || returned < -RESTARTS_LAST))
        return false;
    switch (registers->orig_rax) {
    case SYS_futex: {
        uint64_t operation = registers->rsi & (uint64_t)FUTEX_CMD_MASK;
        return (operation == FUTEX_WAIT || operation == FUTEX_WAIT_BITSET) && registers->r10 == 0;
    }
    case SYS_epoll_wait:
        return (int)registers->r10 == FOR_EVER;
    case SYS_epoll_pwait:
        return (int)registers->r10 == FOR_EVER && registers->r8 == 0; /* no temporary signal mask */
    case SYS_read:
        return true;
    default:
        return false;
    }
}

/* Stop `traced` where it waits, and save its registers. */
static void stop_where_it_waits(void)
{
    static const struct timespec pause = {.tv_nsec = PAUSE_NS};
    struct user_regs_struct registers;
    seize();
    for (int attempt = 0; attempt < TRIES; ++attempt) {
        stop();
        trace("PTRACE_GETREGS", PTRACE_GETREGS, 0, &registers);
        if (waits(&registers)) {
            capture_registers();
            return;
        }
        trace("PTRACE_CONT", PTRACE_CONT, 0, NULL);
        nanosleep(&pause, NULL);
    }
    die("it has a thread that does not wait");
}

static bool add_thread(int folder, const struct linux_dirent64 *entry, void *context)
{
    struct template_head *head = context;
    uint32_t number = (uint32_t)number_at(entry->d_name, 0);
    (void)folder;
    if (head->threads == TEMPLATE_THREADS)
        die("it has too many threads");
    if (head->threads > 0 && (number <= head->thread[head->threads - 1].number ||
                              number - head->thread[0].number > TEMPLATE_THREAD_NUMBERS))
        die("its thread ids are too far apart");
    head->thread[head->threads++].number = number;
    return true;
}

static bool count(int folder, const struct linux_dirent64 *entry, void *context)
{
    (void)folder, (void)entry;
    ++*(uint32_t *)context;
    return true;
}

void stop_threads(struct template_head *head)
{
    uint32_t left = 0;
    each_proc_entry("task", add_thread, head);
    if (head->threads == 0 || head->thread[0].number != (uint32_t)interpreter)
        die("its first thread has ended");
    for (uint32_t index = 1; index < head->threads; ++index) {
        traced = &head->thread[index];
        stop_where_it_waits();
    }
    each_proc_entry("task", count, &left);
    if (left != head->threads)
        die("its threads start and end");
    traced = &head->thread[0];
}

void capture_thread_settings(uint64_t scratch)
{
    struct ptrace_rseq_configuration sequence;
    char name[64] = "", path[sizeof "task//comm" + 20] = "task/", digits[21];
    remote_query("sigaltstack", SYS_sigaltstack, 0, scratch, 0, 0, scratch, &traced->signal_stack, sizeof traced->signal_stack);
    remote_query("rt_sigprocmask", SYS_rt_sigprocmask, 0, 0, scratch, 8, scratch, &traced->signal_mask,
                 sizeof traced->signal_mask);
    remote_query("get_robust_list", SYS_get_robust_list, 0, scratch, scratch + 8, 0, scratch, traced->robust_list,
              sizeof traced->robust_list);
    remote_query("PR_GET_TID_ADDRESS", SYS_prctl, PR_GET_TID_ADDRESS, scratch, 0, 0, scratch, &traced->tid_address,
              sizeof traced->tid_address);
    trace("PTRACE_GET_RSEQ_CONFIGURATION", PTRACE_GET_RSEQ_CONFIGURATION, sizeof sequence, &sequence);
    traced->rseq = sequence.rseq_abi_pointer;
    traced->rseq_bytes = sequence.rseq_abi_size;
    traced->rseq_signature = sequence.signature;
    read_proc_file(strcat(strcat(path, decimal(traced->number, digits)), "/comm"), name, sizeof name);
    name[strcspn(name, "\n")] = '\0';
    memcpy(traced->command, name, sizeof traced->command - 1); /* the kernel's names are not longer */
}
#endif
