#include "program.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/personality.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "capture.h"
#include "kernel.h"
#include "template.h"

enum {
    CPU_SLACK_S = 2,                /* the kernel's limit is a backstop for the server's clock */
    STACK_AT_LEAST_BYTES = 128 << 10 /* with less no program starts with arguments */
};

#define OOM_SCORE_OF_PROGRAM "1000"

#if defined __aarch64__ && !defined __GLIBC__
/* Before 1.2.4 musl's vfork() is fork(2) on arm64: the child would not share our memory, and we would not wait for it. Returns a
 * negative errno on failure. Source: clone(2), CLONE_VM | CLONE_VFORK | SIGCHLD. */
pid_t vfork_on_arm(void) __attribute__((returns_twice));
__asm__(".text\n"
        ".type vfork_on_arm, %function\n"
        "vfork_on_arm:\n"
        "    mov x8, 220\n"
        "    mov x0, 0x4111\n"
        "    mov x1, 0\n"
        "    svc 0\n"
        "    ret\n");
#define vfork() vfork_on_arm()
#endif

static uint64_t at_most_hard(int resource, uint64_t value)
{
    uint64_t hard = hard_limit(resource);
    return hard < value ? hard : value;
}

void limits_of(const struct start *command, struct limits *limits)
{
    uint64_t stack_bytes = command->stack_bytes > STACK_AT_LEAST_BYTES ? command->stack_bytes : STACK_AT_LEAST_BYTES;
    limits->stack_bytes = at_most_hard(RLIMIT_STACK, stack_bytes);
    limits->open_files = at_most_hard(RLIMIT_NOFILE, command->open_files);
    limits->file_size_bytes = at_most_hard(RLIMIT_FSIZE, command->file_size_bytes);
    limits->processes = at_most_hard(RLIMIT_NPROC, command->processes + 1);
    limits->cpu_s = at_most_hard(RLIMIT_CPU, command->cpu_ms > 0 ? command->cpu_ms / 1000 + CPU_SLACK_S : RLIM_INFINITY);
}

int set_program_limits(pid_t pid, const struct limits *limits)
{
    const struct {
        int resource;
        uint64_t value;
    } all[] = {{RLIMIT_STACK, limits->stack_bytes},
               {RLIMIT_NOFILE, limits->open_files},
               {RLIMIT_FSIZE, limits->file_size_bytes},
               {RLIMIT_NPROC, limits->processes},
               {RLIMIT_CPU, limits->cpu_s}};
    for (size_t index = 0; index < sizeof all / sizeof *all; ++index)
        if (set_limit(pid, all[index].resource, all[index].value) < 0)
            return -1;
    return 0;
}

/* Look up a program in PATH like a shell. */
static const char *executable(const char *name, const char **variables)
{
    static char path[PATH_MAX];
    const char *folders = "";
    if (strchr(name, '/') != NULL)
        return name;
    for (const char **variable = variables; *variable != NULL; ++variable)
        if (strncmp(*variable, "PATH=", 5) == 0)
            folders = *variable + 5;
    size_t name_length = strlen(name);
    while (*folders != '\0') {
        size_t length = strcspn(folders, ":");
        if (length > 0 && length + name_length + 2 <= sizeof path) {
            memcpy(path, folders, length);
            path[length] = '/';
            memcpy(path + length + 1, name, name_length + 1);
            if (access(path, X_OK) == 0)
                return path;
        }
        folders += length + (folders[length] == ':');
    }
    fail("execve", ENOENT);
    return NULL;
}

/* Connect stdin, stdout and stderr. The first terminal that a session leader opens becomes its controlling terminal. */
static int connect_streams(const struct program *program)
{
    if (program->terminal != NULL) {
        int terminal = (int)check("open", open(program->terminal, O_RDWR));
        if (terminal < 0)
            return -1;
        for (int number = 0; number < 3; ++number)
            if (check("dup2", dup2(terminal, number)) < 0)
                return -1;
        return terminal > 2 ? close(terminal) : 0;
    }
    for (int number = 0; number < 3; ++number)
        if (check("dup2", dup2(program->streams[number], number)) < 0)
            return -1;
    return 0;
}

/* Execute the restorer of a template; PID 1 has disabled address randomization. Returns when that fails. */
static void become_restored(const struct program *program)
{
    char *words[] = {(char[]){TEMPLATE_COMMAND}, NULL}, *variables[] = {NULL};
    if (dup2(program->template, TEMPLATE_CONTENTS) >= 0 && dup2(program->confirm, PROTOCOL_RESTORED) >= 0)
        syscall(SYS_execveat, program->restorer, "", words, variables, AT_EMPTY_PATH);
    close(TEMPLATE_CONTENTS);
    close(PROTOCOL_RESTORED);
    if (write(program->confirm, "", 1) < 0) /* fall back to starting the interpreter */
        _exit(127);
}

/* Code of the child until execve(2). It shares our memory, so `failure` reports errors to the parent. */
static _Noreturn void become_program(const struct program *program, const char *path)
{
    sigset_t none;
    sigemptyset(&none);
    signal(SIGIO, SIG_DFL); /* PID 1 may ignore this one */
    if (check("setsid", setsid()) >= 0 && connect_streams(program) == 0 &&
        (program->gate < 0 || check("dup2", dup2(program->gate, PROTOCOL_GATE)) >= 0) &&
        (program->limits == NULL || set_program_limits(0, program->limits) == 0)) {
        sigprocmask(SIG_SETMASK, &none, NULL);
        if (program->captured != NULL)
            start_capture(program->captured, program->other_pid, program->streams[2]);
        if (program->template >= 0)
            become_restored(program);
        if (program->captured == NULL)
            personality(PER_LINUX);
        check("execve", execve(path, (char *const *)(uintptr_t)program->words, (char *const *)(uintptr_t)program->variables));
    }
    _exit(127);
}

static int set_oom_score(const struct program *program, const char *score, size_t length)
{
    return check("oom_score_adj", pwrite(program->oom_score, score, length, 0)) < 0 ? -1 : 0;
}

pid_t start_program(const struct program *program, const char **about)
{
    char own_score[16];
    int status;
    *about = program->words[0] != NULL ? program->words[0] : "";
    const char *path = program->words[0] != NULL ? executable(program->words[0], program->variables) : NULL;
    if (path == NULL)
        return fail("execve", ENOENT);
    *about = path;
    failure.number = 0;
    /* When memory runs out the kernel should kill the program first. It inherits our score, which is raised for a moment. */
    long length = check("oom_score_adj", pread(program->oom_score, own_score, sizeof own_score, 0));
    if (length < 0 || set_oom_score(program, OOM_SCORE_OF_PROGRAM, strlen(OOM_SCORE_OF_PROGRAM)) < 0)
        return -1;
    pid_t pid = program->captured != NULL ? fork() : vfork();
    if (pid == 0)
        become_program(program, path);
    if (pid < 0)
        fail("vfork", pid == -1 ? errno : -pid);
    struct failure why = failure;
    if (set_oom_score(program, own_score, (size_t)length) < 0)
        why = failure;
    if (why.number == 0)
        return pid;
    if (pid > 0) {
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
    }
    return fail(why.call, why.number);
}

void kill_everything(void)
{
    do
        kill(-1, SIGKILL);
    while (waitpid(-1, NULL, 0) > 0 || errno == EINTR);
}

int open_terminal(uint32_t rows, uint32_t columns, const char **path)
{
    static char slave[sizeof "/dev/pts/" + 21];
    struct winsize size = {.ws_row = (unsigned short)rows, .ws_col = (unsigned short)columns};
    char digits[21];
    unsigned number;
    int unlocked = 0, master = open_at(AT_FDCWD, "/dev/ptmx", O_RDWR | O_NOCTTY, 0);
    if (master < 0)
        return -1;
    if (check("TIOCSPTLCK", syscall(SYS_ioctl, master, TIOCSPTLCK, &unlocked)) < 0 ||
        check("TIOCGPTN", syscall(SYS_ioctl, master, TIOCGPTN, &number)) < 0 ||
        check("TIOCSWINSZ", syscall(SYS_ioctl, master, TIOCSWINSZ, &size)) < 0)
        return -1;
    *path = strcat(strcpy(slave, "/dev/pts/"), decimal(number, digits));
    return master;
}
