#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "collect.h"
#include "files.h"
#include "kernel.h"
#include "prestart.h"
#include "program.h"
#include "sampling.h"
#include "supervisor.h"

enum { SAMPLE_MS = 10, PIPE_BYTES = 64 << 10 };

/* Words of the command and of a prestarted program are in the received message: they are not used after the next one arrives. */

static int link_to_server;
static int children_ended; /* readable when a child has ended */
static int streams[3];     /* the program's ends of its pipes */
static int oom_score;
static bool sampled;
static int64_t used_before_us;

/* A received command. */
struct command {
    const struct start *start;
    const struct packed_file *files;
    struct text text;
    const char **words, **variables, **resume_words;
    struct message message; /* its descriptors are the packs */
};

/* Create the program's pipes, as the sandbox's own user, so that programs can open /dev/stdout by name. ours: the server's
 * ends. */
static int make_pipes(int ours[3])
{
    int ends[2];
    for (int number = 0; number < 3; ++number) {
        if (check("pipe", pipe2(ends, O_CLOEXEC)) < 0)
            return -1;
        streams[number] = ends[number == 0 ? 0 : 1];
        ours[number] = ends[number == 0 ? 1 : 0];
    }
    return 0;
}

/* Send a message with descriptors. The kernel refuses when the uid has more descriptors in flight than the sender's limit on open
 * files, which a program can provoke: raise the limit for a moment. */
static int send_descriptors(const void *message, size_t bytes, const int *descriptors, int count)
{
    struct rlimit own = {0, 0};
    if (count == 0)
        return send_message(link_to_server, message, bytes, "", NULL, 0);
    getrlimit(RLIMIT_NOFILE, &own);
    struct rlimit most = {own.rlim_max, own.rlim_max};
    setrlimit(RLIMIT_NOFILE, &most);
    int done = send_message(link_to_server, message, bytes, "", descriptors, count);
    setrlimit(RLIMIT_NOFILE, &own);
    return done;
}

/* Send the streams and meters to the server. */
static int report_ready(const struct sandbox *sandbox, const struct ready *ready, const int ours[3])
{
    int descriptors[3 + METERS];
    const struct step_context *context = &sandbox->context;
    memcpy(descriptors, ours, 3 * sizeof(int));
    memcpy(descriptors + 3, context->meters, (size_t)context->meter_count * sizeof(int));
    int done = send_descriptors(ready, sizeof *ready, descriptors, 3 + context->meter_count);
    for (int index = 0; index < context->meter_count; ++index)
        close(context->meters[index]);
    return done;
}

static void drain_signals(void)
{
    struct signalfd_siginfo information;
    while (read(children_ended, &information, sizeof information) > 0)
        ;
}

/* Discard the output of a prestarted program that has ended. */
static void empty(const int *pipes, int count)
{
    char away[4096];
    for (int index = 0; index < count; ++index) {
        fcntl(pipes[index], F_SETFL, O_NONBLOCK);
        for (int left = PIPE_BYTES; left > 0 && read(pipes[index], away, sizeof away) > 0;)
            left -= (int)sizeof away;
    }
}

/* Watch a prestarted program until a message arrives: renew it in time, and do without one that ends. outputs: the server's ends
 * of its streams. */
static void watch_prestarted(const int outputs[2])
{
    struct pollfd polled[] = {{.fd = link_to_server, .events = POLLIN},
                              {.fd = children_ended, .events = POLLIN},
                              {.fd = supervisor_descriptor(), .events = POLLIN}};
    for (;;) {
        drain_signals();
        if (!prestart_is_waiting()) { /* it has ended, perhaps before the first poll */
            empty(outputs, 2);
            return;
        }
        int count = poll(polled, 3, prestart_timeout_ms());
        if (count < 0 && errno == EINTR)
            continue;
        if (polled[2].revents != 0)
            supervisor_answer();
        if (polled[0].revents != 0)
            return;
        if (count == 0 && prestart_renew() < 0)
            return;
    }
}

/* Start the prestarted program. If that fails, the command is started normally. */
static void prestart(const struct sandbox *sandbox, const int ours[3])
{
    const struct make *make = sandbox->make;
    uint32_t offset = 0;
    struct program program = {.streams = streams, .gate = -1, .template = sandbox->template,
                              .restorer = sandbox->restorer, .oom_score = oom_score};
    program.words = words_at(&sandbox->text, &offset, make->words);
    program.variables = program.words == NULL ? NULL : words_at(&sandbox->text, &offset, make->variables);
    if (program.variables != NULL &&
        prestart_start(&program, string_at(&sandbox->text, make->main), make->flags & MAKE_FLAG_HELD) == 0)
        watch_prestarted(ours + 1);
}

/* Receive the command. Exits when the link is closed. */
static int receive_command(struct command *command)
{
    uint32_t offset = 0;
    struct message *message = &command->message;
    if (receive_message(link_to_server, message) < 0 || message->bytes == 0)
        _exit(0);
    command->start = take(message, sizeof *command->start);
    if (command->start == NULL || command->start->kind != KIND_START)
        return fail("message", EBADMSG);
    command->files = take(message, (uint64_t)command->start->files * sizeof *command->files);
    if (command->files == NULL || take_text(message, command->start->text_bytes, &command->text) < 0 ||
        command->start->packs > (uint32_t)message->descriptor_count)
        return fail("message", EBADMSG);
    uint32_t resume_words = command->start->resume_words == PROTOCOL_NO_WORDS ? 0 : command->start->resume_words;
    command->words = words_at(&command->text, &offset, command->start->words);
    command->variables = command->words == NULL ? NULL : words_at(&command->text, &offset, command->start->variables);
    command->resume_words = command->variables == NULL ? NULL : words_at(&command->text, &offset, resume_words);
    return command->resume_words == NULL ? -1 : 0;
}

/* Return whether a command has an input file of this name. */
static bool has_file(const struct command *command, const char *name)
{
    for (uint32_t index = 0; index < command->start->files; ++index)
        if (strcmp(string_at(&command->text, command->files[index].name), name) == 0)
            return true;
    return false;
}

/* Resume the prestarted program, or start the command. Returns its pid. */
static pid_t start_command(const struct command *command, const char *terminal, uint32_t *prestarted, const char **about)
{
    struct limits limits;
    limits_of(command->start, &limits);
    used_before_us = children_cpu_us();
    if (prestart_is_waiting()) {
        pid_t pid = prestart_release(command->resume_words, &limits);
        if (pid > 0) {
            clockid_t clock = (clockid_t)((~(unsigned)pid << 3) | 2); /* CPU time of a process: clock_getcpuclockid(3) */
            used_before_us += clock_us(clock);
            *prestarted = 1;
            return pid;
        }
        used_before_us = children_cpu_us();
    }
    struct program program = {.words = command->words, .variables = command->variables, .streams = streams,
                              .terminal = terminal, .gate = -1, .template = -1, .limits = &limits, .oom_score = oom_score};
    if (command->start->flags & START_FLAG_CAPTURE)
        program.captured = command->resume_words[0] != NULL ? command->resume_words[0] : "";
    program.other_pid = command->start->flags & START_FLAG_OTHER_PID;
    return start_program(&program, about);
}

/* Report that the command cannot be started, and exit. about: the program or file; its beginning is sent. */
static _Noreturn void refuse(enum phase phase, const char *about)
{
    char shown[1024] = "";
    size_t bytes = strlen(about);
    if (bytes >= sizeof shown)
        for (bytes = sizeof shown - 1; bytes > 0 && (about[bytes] & 0xC0) == 0x80;)
            --bytes; /* not inside a UTF-8 character */
    memcpy(shown, about, bytes);
    struct refused message = {KIND_REFUSED, phase, (uint32_t)failure.number, (uint32_t)strlen(shown)};
    send_message(link_to_server, &message, sizeof message, shown, NULL, 0);
    _exit(0);
}

/* Handle a message while the program runs. */
static void handle_request(pid_t pid)
{
    struct message message;
    if (receive_message(link_to_server, &message) < 0 || message.bytes == 0)
        _exit(0); /* the server is gone; the kernel kills everything with us */
    const struct signal *request = (const void *)message.data;
    if (message_kind(&message) == KIND_SIGNAL && message.bytes == sizeof *request)
        kill(-pid, (int)request->signal);
    else if (message_kind(&message) == KIND_STOP)
        kill(-1, SIGKILL);
    close_descriptors(&message);
}

/* Reap children. Returns whether the program itself has ended. */
static bool reap(pid_t pid, int *status)
{
    pid_t reaped;
    while ((reaped = waitpid(-1, status, WNOHANG)) > 0)
        if (reaped == pid)
            return true;
    return false;
}

/* Wait for the end of the program. Returns its wait status. */
static int watch(pid_t pid)
{
    struct pollfd polled[] = {{.fd = link_to_server, .events = POLLIN},
                              {.fd = children_ended, .events = POLLIN},
                              {.fd = supervisor_descriptor(), .events = POLLIN}};
    int64_t sample_at = now_ms() + SAMPLE_MS;
    int status;
    while (!reap(pid, &status)) {
        int64_t pause_ms = sampled ? sample_at - now_ms() : -1;
        poll(polled, 3, sampled && pause_ms < 0 ? 0 : (int)pause_ms);
        if (polled[2].revents != 0)
            supervisor_answer();
        if (polled[0].revents != 0)
            handle_request(pid);
        if (polled[1].revents != 0)
            drain_signals();
        /* Not after every supervised call, or a program that makes many would keep us busy. */
        if (sampled && now_ms() >= sample_at) {
            if (!sampling_exceeded()) {
                sample();
                if (sampling_exceeded())
                    kill(-1, SIGKILL);
            }
            sample_at = now_ms() + SAMPLE_MS;
        }
    }
    return status;
}

static void report_exit(int status)
{
    struct rusage used;
    struct exited message = {.kind = KIND_EXITED, .status = WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status)};
    int64_t cpu_us = children_cpu_us() - used_before_us;
    message.cpu_us = cpu_us > 0 ? (uint64_t)cpu_us : 0;
    if (sampled) {
        getrusage(RUSAGE_CHILDREN, &used);
        uint64_t largest = (uint64_t)used.ru_maxrss * 1024, seen = sampling_peak_bytes();
        message.exceeded = sampling_exceeded();
        message.memory_peak_bytes = largest > seen ? largest : seen;
    }
    send_message(link_to_server, &message, sizeof message, "", NULL, 0);
}

/* Collect files on request until the link is closed: exiting with unread messages would discard those just sent. */
static void collect_when_asked(void)
{
    for (;;) {
        struct message message;
        struct text text;
        if (receive_message(link_to_server, &message) < 0 || message.bytes == 0)
            return;
        bool wanted = message_kind(&message) == KIND_COLLECT && message.descriptor_count == 1;
        const struct collect *request = wanted ? take(&message, sizeof *request) : NULL;
        if (request != NULL && take_text(&message, request->text_bytes, &text) == 0) {
            uint32_t offset = 0;
            if (words_at(&text, &offset, request->patterns) != NULL)
                collect(message.descriptors[0], request, text.data);
        }
        close_descriptors(&message);
    }
}

/* Write the files, start the program, report it. Returns its pid; refuses a command that cannot be started. terminal: to be kept
 * open while the program runs. */
static pid_t start(struct command *command, int *terminal)
{
    const char *about = "", *path = NULL, *main;
    struct started started = {KIND_STARTED, 0};
    bool waits = prestart_is_waiting(); /* first: this closes the main file of one that has ended */
    int master = -1, held = prestart_held_file(&main);
    if (waits && (command->start->resume_words == PROTOCOL_NO_WORDS || (held >= 0 && !has_file(command, main)))) {
        prestart_kill(); /* it waits for a different command */
        held = -1;
    }
    if (write_files(command->files, command->start->files, &command->text, command->message.descriptors,
                    (int)command->start->packs, held, main, &about) < 0)
        refuse(PHASE_FILES, about);
    close_descriptors(&command->message);
    if (command->start->flags & START_FLAG_TERMINAL) {
        master = open_terminal(command->start->rows, command->start->columns, &path);
        /* Else the terminal would hang up when the program closes its streams. */
        *terminal = master < 0 ? -1 : open_at(AT_FDCWD, path, O_RDWR | O_NOCTTY, 0);
        if (*terminal < 0)
            refuse(PHASE_TERMINAL, "");
    }
    supervisor_limit(command->start->memory_bytes);
    pid_t pid = start_command(command, path, &started.prestarted, &about);
    if (pid < 0)
        refuse(PHASE_PROGRAM, about);
    close(oom_score);
    for (int number = 0; number < 3; ++number)
        close(streams[number]);
    send_descriptors(&started, sizeof started, &master, master < 0 ? 0 : 1);
    if (master >= 0)
        close(master);
    return pid;
}

void serve_command(const struct sandbox *sandbox, const struct ready *ready)
{
    sigset_t child_ended;
    int ours[3], terminal = -1;
    struct command command;
    link_to_server = sandbox->link;
    oom_score = sandbox->oom_score;
    sampled = sandbox->make->flags & MAKE_FLAG_SAMPLED;
    sigemptyset(&child_ended);
    sigaddset(&child_ended, SIGCHLD); /* blocked since the start of the launcher */
    children_ended = (int)check("signalfd", signalfd(-1, &child_ended, SFD_CLOEXEC | SFD_NONBLOCK));
    if (children_ended < 0 || make_pipes(ours) < 0 || report_ready(sandbox, ready, ours) < 0)
        return;
    close(ours[0]);
    if (sandbox->make->flags & MAKE_FLAG_PRESTART)
        prestart(sandbox, ours);
    close(ours[1]);
    close(ours[2]);
    close(sandbox->restorer);
    close(sandbox->template);
    if (receive_command(&command) < 0)
        return;
    pid_t pid = start(&command, &terminal);
    if (sampled)
        sampling_start(command.start->memory_bytes, command.start->cpu_ms, used_before_us, command.start->open_files);
    int status = watch(pid);
    kill_everything();
    if (terminal >= 0)
        close(terminal);
    report_exit(status);
    collect_when_asked();
    _exit(0);
}
