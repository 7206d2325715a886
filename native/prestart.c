#include "prestart.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "files.h"
#include "kernel.h"
#include "proc.h"

enum {
    RESTORE_MS = 10000, /* after this a restorer is killed */
    LEASE_PERCENT = 80  /* share of the kernel's lease timeout after which a program is replaced */
};

#define LEASE_TIME "/proc/sys/fs/lease-break-time"

static struct program program;
static char main_file[PATH_MAX];
static bool is_held;
static pid_t pid;
static int gate = -1, held = -1, restored = -1, timeout_ms = -1;

/* Interpreters that open the main file before the hook runs need a placeholder, which is overwritten later. */
static int open_gate(int *read_end)
{
    int ends[2];
    if (*main_file != '\0') {
        int placeholder = open_at(AT_FDCWD, main_file, O_WRONLY | O_CREAT, 0644);
        if (placeholder < 0)
            return -1;
        long written = write(placeholder, "\n", 1); /* Ruby reads the first bytes early, and does not read an empty file again */
        close(placeholder);
        if (check("write", written) < 0)
            return -1;
    }
    if (check("pipe", pipe2(ends, O_CLOEXEC | O_NONBLOCK)) < 0)
        return -1;
    fcntl(ends[0], F_SETFL, 0);
    *read_end = ends[0];
    gate = ends[1];
    return 0;
}

/* Take a lease on the main file: open(2) of it blocks until the lease is released. The kernel breaks a lease after a while and
 * sends a signal, which must be ignored. Source: fcntl(2), "Leases". */
static int hold_main_file(void)
{
    char text[32];
    const char *seconds = text;
    if (read_file(AT_FDCWD, LEASE_TIME, text, sizeof text) < 0)
        return -1;
    uint64_t lease_s = parse_decimal(&seconds);
    timeout_ms = lease_s > 0 && lease_s < 86400 ? (int)(lease_s * 1000 * LEASE_PERCENT / 100) : -1;
    signal(SIGIO, SIG_IGN);
    held = open_at(AT_FDCWD, main_file, O_RDWR | O_CREAT, 0644);
    return held < 0 ? -1 : (int)check("F_SETLEASE", fcntl(held, F_SETLEASE, F_WRLCK));
}

static void close_all(void)
{
    int *all[] = {&gate, &held /* releases the lease */, &restored};
    for (size_t index = 0; index < sizeof all / sizeof *all; ++index) {
        if (*all[index] >= 0)
            close(*all[index]);
        *all[index] = -1;
    }
}

static int start(void)
{
    const char *about;
    int read_end = -1, ends[2] = {-1, -1};
    int done = make_folders_above(main_file, &about);
    if (done == 0)
        done = is_held ? hold_main_file() : open_gate(&read_end);
    if (done == 0 && program.template >= 0)
        done = (int)check("pipe", pipe2(ends, O_CLOEXEC));
    restored = ends[0];
    if (done == 0) {
        program.gate = read_end;
        program.confirm = ends[1];
        pid = start_program(&program, &about);
    }
    if (read_end >= 0)
        close(read_end);
    if (ends[1] >= 0)
        close(ends[1]);
    if (done < 0 || pid < 0) {
        pid = 0;
        close_all();
        return -1;
    }
    return 0;
}

int prestart_start(const struct program *wanted, const char *main, bool waits_at_main)
{
    program = *wanted;
    if (strlen(main) >= sizeof main_file)
        return fail("prestart", ENAMETOOLONG);
    strcpy(main_file, main);
    is_held = waits_at_main;
    return start();
}

bool prestart_is_waiting(void)
{
    if (pid == 0)
        return false;
    if (waitpid(pid, NULL, WNOHANG) == 0)
        return true;
    pid = 0;
    prestart_kill();
    return false;
}

int prestart_timeout_ms(void)
{
    return timeout_ms;
}

void prestart_kill(void)
{
    kill_everything();
    pid = 0;
    close_all(); /* last: it would resume the program */
}

int prestart_renew(void)
{
    prestart_kill();
    return start();
}

int prestart_held_file(const char **name)
{
    *name = main_file;
    return held;
}

/* Write the words for the hook. The pipe has room for all of them. */
static int write_words(const char **words)
{
    for (; *words != NULL; ++words) {
        size_t bytes = strlen(*words) + 1;
        if (write(gate, *words, bytes) != (long)bytes)
            return fail("write", EAGAIN);
    }
    return 0;
}

/* Limit every process but this one: the program may have children. New processes inherit limits, so stop when a pass finds no
 * more processes than the one before. */
static int limit_all(const struct limits *limits)
{
    static struct pairs processes;
    size_t before;
    do {
        before = processes.used;
        if (!proc_list(&processes))
            return -1;
        for (size_t index = 0; index < processes.used; ++index)
            if (set_program_limits((pid_t)processes.items[index].low, limits) < 0 && failure.number != ESRCH)
                return -1;
    } while (processes.used != before);
    return 0;
}

/* Wait for the end of a restore. Returns whether it succeeded: a restorer that fails exits. */
static bool is_restored(void)
{
    struct pollfd polled = {.fd = restored, .events = POLLIN};
    char said;
    return restored < 0 || (poll(&polled, 1, RESTORE_MS) == 1 && read(restored, &said, 1) == 1);
}

pid_t prestart_release(const char **words, const struct limits *limits)
{
    if (!prestart_is_waiting())
        return -1;
    if (!is_restored() || limit_all(limits) < 0 || (gate >= 0 && write_words(words) < 0)) {
        prestart_kill();
        return -1;
    }
    close_all();
    pid_t released = pid;
    pid = 0;
    return released;
}
