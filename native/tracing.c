#include "tracing.h"

#include <string.h>
#include <unistd.h>

#include "kernel.h"

_Noreturn void die(const char *why)
{
    write_all(2, why, strlen(why));
    _exit(1);
}

#ifdef __x86_64__

#include <errno.h>
#include <fcntl.h>
#include <linux/ptrace.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "proc.h"

#define TRACED_CALL (SIGTRAP | 0x80)

pid_t interpreter;
struct template_thread *traced;
static int memory = -1; /* the interpreter's */

void require(const char *what, bool done)
{
    char why[128] = "", digits[21];
    const char *number = decimal((uint64_t)errno, digits);
    if (done)
        return;
    strncat(why, what, sizeof why - sizeof ": error " - sizeof digits); /* it may be a long path */
    die(strcat(strcat(why, ": error "), number));
}

void trace(const char *name, long request, uintptr_t address, void *data)
{
    require(name, syscall(SYS_ptrace, request, traced->number, address, data) >= 0); /* C libraries differ in ptrace(2) */
}

/* Wait until the thread stops. Returns its wait status. */
static int wait_for_stop(void)
{
    int status;
    require("waitpid", waitpid((pid_t)traced->number, &status, __WALL) >= 0);
    if (!WIFSTOPPED(status))
        die("it ended before it waited");
    return status;
}

void seize(void)
{
    trace("PTRACE_SEIZE", PTRACE_SEIZE, 0, (void *)(PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL));
}

void stop(void)
{
    trace("PTRACE_INTERRUPT", PTRACE_INTERRUPT, 0, NULL);
    wait_for_stop();
}

void run_to_next_stop(void)
{
    for (int passed_on = 0;;) {
        trace("PTRACE_SYSCALL", PTRACE_SYSCALL, 0, (void *)(intptr_t)passed_on);
        int status = wait_for_stop();
        if (WSTOPSIG(status) == TRACED_CALL)
            return;
        passed_on = status >> 16 == 0 ? WSTOPSIG(status) : 0;
    }
}

void capture_registers(void)
{
    struct user_fpregs_struct floating;
    trace("PTRACE_GETREGS", PTRACE_GETREGS, 0, &traced->registers);
    trace("PTRACE_GETFPREGS", PTRACE_GETFPREGS, 0, &floating);
    traced->mxcsr = floating.mxcsr;
    traced->x87_control = floating.cwd;
    traced->registers.rip -= 2; /* the instruction `syscall` */
    traced->registers.rax = traced->registers.orig_rax;
}

long remote_call(long number, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    struct user_regs_struct registers = traced->registers;
    registers.rax = (uint64_t)number;
    registers.orig_rax = ~0ULL; /* do not restart a system call */
    registers.rdi = a;
    registers.rsi = b;
    registers.rdx = c;
    registers.r10 = d;
    trace("PTRACE_SETREGS", PTRACE_SETREGS, 0, &registers);
    run_to_next_stop();
    run_to_next_stop();
    trace("PTRACE_GETREGS", PTRACE_GETREGS, 0, &registers);
    return (long)registers.rax;
}

void remote_query(const char *name, long number, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t at, void *answer,
               size_t bytes)
{
    errno = 0;
    require(name, remote_call(number, a, b, c, d) >= 0);
    read_remote(at, answer, bytes);
}

void open_memory(void)
{
    if (memory >= 0)
        close(memory);
    memory = open_at(proc_folder(), proc_path((uint64_t)interpreter, "mem"), O_RDONLY, 0);
    require("mem", memory >= 0);
}

long try_read_remote(uint64_t address, void *to, size_t bytes)
{
    return pread(memory, to, bytes, (off_t)address);
}

void read_remote(uint64_t address, void *to, size_t bytes)
{
    require("its memory", try_read_remote(address, to, bytes) == (long)bytes);
}

void read_proc_file(const char *name, void *buffer, size_t room)
{
    errno = 0;
    require(name, read_file(proc_folder(), proc_path((uint64_t)interpreter, name), buffer, room) >= 0);
}

void each_proc_entry(const char *name, bool (*entry)(int folder, const struct linux_dirent64 *entry, void *context),
                     void *context)
{
    int folder = open_at(proc_folder(), proc_path((uint64_t)interpreter, name), O_RDONLY | O_DIRECTORY, 0);
    require(name, folder >= 0);
    require(name, (errno = each_entry(folder, entry, context)) == 0);
    close(folder);
}
#endif
