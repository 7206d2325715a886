/* Runs parts of native/sampling.c, supervisor.c and system_v.c against a folder instead of /proc, for test_sampling.py. */
#include "kernel.c"
#include "proc.c"
#include "system_v.c"

#include "supervisor.c"

#include "sampling.c"

#include <stdio.h>
#include <stdlib.h>

static int64_t clock_now_us, look_us;
static int looks;

/* A clock that stands still but while descriptors are looked at. */
static int64_t harness_clock(void)
{
    static bool looking;
    if (looking) {
        ++looks;
        clock_now_us += look_us;
        looking = false;
    } else {
        looking = clock_now_us >= look_again_at_us;
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

/* Leave no descriptor that could be opened. */
static void open_nothing_more(void)
{
    struct rlimit none = {0, 0};
    proc_folder();
    setrlimit(RLIMIT_NOFILE, &none);
}

static void print_sample(void)
{
    struct memory memory;
    uint64_t ticks;
    add_up(&memory, &ticks);
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

/* Usage: sampling_harness ROOT looks LOOK_US
 *        sampling_harness ROOT sample|blind MEMORY_BYTES CPU_MS OPEN_FILES
 *        sampling_harness ROOT decide LIMIT_BYTES CALL:ARGUMENT...
 *        sampling_harness ROOT mappings THREAD:LENGTH... */
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
        sampling_begin(number(words[3]), number(words[4]), 0, (uint32_t)number(words[5]));
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
    } else {
        for (int index = 3; index < count; ++index)
            note_mapping(number(words[index]), number(strchr(words[index], ':') + 1));
        print("before", supervisor_shared_bytes());
        supervisor_forget_unmapped();
        print("after", supervisor_shared_bytes());
    }
    fflush(stdout);
    _exit(0); /* the sanitizer would look for leaks with descriptors that it cannot open */
}
