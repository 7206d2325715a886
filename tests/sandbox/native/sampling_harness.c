/* Runs parts of native/sampling.c, supervisor.c and system_v.c against a folder instead of /proc, for test_sampling.py. */
#include "kernel.c"
#include "proc.c"
#include "system_v.c"

#include "supervisor.c"

#include "sampling.c"

#include <linux/capability.h>
#include <linux/filter.h>
#include <poll.h>
#include <linux/sched.h>
#include <signal.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <stdio.h>
#include <stdlib.h>

static int64_t clock_now_us, look_us;
static int looks;

/* A clock that only advances while descriptors are sampled. */
static int64_t harness_clock(void)
{
    static bool looking;
    if (looking) {
        ++looks;
        clock_now_us += look_us;
        looking = false;
    } else {
        looking = clock_now_us >= next_descriptors_at_us;
    }
    return clock_now_us;
}

static uint64_t number(const char *text)
{
    return strtoull(text, NULL, 0);
}

static void print(const char *name, uint64_t value)
{
    printf("%s %llu\n", name, (unsigned long long)value);
}

/* Use up all descriptors. */
static void open_nothing_more(void)
{
    struct rlimit none = {0, 0};
    proc_folder();
    setrlimit(RLIMIT_NOFILE, &none);
}

/* Make file modes apply to us, as to a process in a sandbox. */
static void drop_capabilities(void)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct none[2] = {{0, 0, 0}};
    if (syscall(SYS_capset, &header, none) != 0)
        abort();
}

static void print_sample(void)
{
    struct memory memory;
    uint64_t ticks;
    sum_processes(&memory, &ticks);
    print("processes", processes.used);
    print("anonymous", memory.anonymous);
    print("shared", memory.shared);
    print("hidden", memory.hidden);
    print("ticks", ticks);
    print("pipes", pipe_bytes());
    print("local", local_socket_bytes());
    print("internet", internet_socket_bytes());
    print("netlink", netlink_sockets());
    print("queues", system_v_queues());
    print("sets", system_v_semaphore_sets());
    print("segments", system_v_segments_bytes());
    print("resident", system_v_resident_bytes());
    print("kernel", system_v_kernel_bytes());
    divide_among_sharers(&memory);
    print("proportional_anonymous", memory.anonymous);
    print("proportional_shared", memory.shared);
    size_t mappings;
    print("mappings", count_shared_mappings(&mappings) ? mappings : UINT64_MAX);
    sample();
    print("exceeded", exceeded);
    print("peak", peak_bytes);
}

/* Load a filter that notifies of some calls. Returns its listener. */
static int ask_about_calls(void)
{
    struct sock_filter asked[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_semget, 6, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_socket, 5, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 4, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mmap, 0, 2),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[3])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, MAP_SHARED | MAP_ANONYMOUS, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
    };
    struct sock_fprog program = {sizeof asked / sizeof *asked, asked};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
}

/* Start a process that shares our descriptors, so that we have its listener. Returns the pid. */
static pid_t start_asking(int link[2], int *listener)
{
    pid_t pid = (pid_t)syscall(SYS_clone, CLONE_FILES | SIGCHLD, NULL, NULL, NULL, NULL);
    if (pid == 0) {
        int mine = ask_about_calls();
        write_all(link[1], &mine, sizeof mine);
        return 0;
    }
    if (read(link[0], listener, sizeof *listener) != sizeof *listener)
        abort();
    if (*listener < 0)
        _exit(77);
    return pid;
}

static void print_call(const char *name, long returned)
{
    print(name, returned < 0 ? (uint64_t)errno : 0);
    fflush(stdout);
}

static void *share(size_t bytes)
{
    return mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

/* Run a program that makes supervised calls. */
static void answer_calls(void)
{
    int link[2], listener;
    if (pipe(link) != 0)
        abort();
    pid_t pid = start_asking(link, &listener);
    if (pid == 0) {
        print_call("socket", socket(AF_INET, SOCK_STREAM, 0));
        print_call("mapped", share(1 << 20) == MAP_FAILED ? -1 : 0);
        print_call("large", share((64 << 20) + 1) == MAP_FAILED ? -1 : 0);
        print_call("twice", share((63 << 20) + 1) == MAP_FAILED ? -1 : 0);
        print_call("semget", semget(IPC_PRIVATE, 65, 0600));
        print_call("getppid", syscall(SYS_getppid));
        _exit(0);
    }
    supervisor_start(listener);
    while (waitpid(pid, NULL, WNOHANG) == 0) {
        struct pollfd ready = {listener, POLLIN, 0};
        if (poll(&ready, 1, 10) == 1 && ready.revents == POLLIN)
            supervisor_answer();
    }
    print("bytes", supervisor_shared_bytes());
    close(listener);
}

/* Kill a program that waits for a response. */
static void answer_too_late(void)
{
    int link[2], listener;
    if (pipe(link) != 0)
        abort();
    pid_t pid = start_asking(link, &listener);
    if (pid == 0)
        _exit((int)syscall(SYS_getppid));
    supervisor_start(listener);
    struct pollfd ready = {listener, POLLIN, 0};
    print("asked", (uint64_t)poll(&ready, 1, 10000));
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    supervisor_answer();
    print("answered", 1);
}

/* Usage: sampling_harness ROOT looks LOOK_US
 *        sampling_harness ROOT sample|blind MEMORY_BYTES CPU_MS OPEN_FILES
 *        sampling_harness ROOT decide LIMIT_BYTES CALL:ARGUMENT...
 *        sampling_harness ROOT mappings TIMES THREAD:LENGTH...
 *        sampling_harness ROOT answer calls|late */
int main(int count, char **words)
{
    if (count < 4)
        return 2;
    proc_root = work = words[1];
    if (strcmp(words[2], "looks") == 0) {
        now_us = harness_clock;
        look_us = (int64_t)number(words[3]);
        for (int samples = 0; samples < 10; ++samples) {
            clock_now_us += 100000;
            sample();
        }
        print("looks", (uint64_t)looks);
    } else if (strcmp(words[2], "sample") == 0 || strcmp(words[2], "blind") == 0) {
        drop_capabilities();
        sampling_start(number(words[3]), number(words[4]), 0, (uint32_t)number(words[5]));
        if (strcmp(words[2], "blind") == 0)
            open_nothing_more();
        print_sample();
    } else if (strcmp(words[2], "decide") == 0) {
        static const struct {
            const char *name;
            int number;
        } calls[] = {
            {"socket", SYS_socket}, {"mmap", SYS_mmap},     {"shmget", SYS_shmget},
            {"msgget", SYS_msgget}, {"semget", SYS_semget}, {"getpid", SYS_getpid},
        };
        if (strcmp(words[3], "start") != 0)
            supervisor_limit(number(words[3]));
        for (int index = 4; index < count; ++index) {
            const char *argument = strchr(words[index], ':') + 1;
            for (size_t call = 0; call < sizeof calls / sizeof *calls; ++call) {
                uint64_t arguments[6] = {0, number(argument)};
                if (strncmp(words[index], calls[call].name, strlen(calls[call].name)) == 0)
                    print(calls[call].name, (uint64_t)decide(calls[call].number, arguments));
            }
        }
    } else if (strcmp(words[2], "answer") == 0) {
        if (strcmp(words[3], "late") == 0)
            answer_too_late();
        else
            answer_calls();
    } else {
        for (int index = 4; index < count; ++index)
            for (uint64_t times = number(words[3]); times > 0; --times)
                note_mapping(number(words[index]), number(strchr(words[index], ':') + 1));
        print("before", supervisor_shared_bytes());
        supervisor_forget_unmapped();
        print("after", supervisor_shared_bytes());
    }
    fflush(stdout);
    _exit(0); /* the sanitizer would look for leaks with descriptors that it cannot open */
}
