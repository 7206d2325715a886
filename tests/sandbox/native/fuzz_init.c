/* Fuzz the messages of PID 1: the command with its files, requests while it runs, and the collection of files. */
#include "fuzz_messages.h"

#include <stdlib.h>

static const uint8_t *rest;
static size_t rest_bytes;

static int next_of_input(struct message *message)
{
    if (!next_message(&rest, &rest_bytes, message))
        *message = (struct message){0};
    return message->bytes > 0 ? 0 : -1;
}

#define receive_message(link, message) next_of_input(message)
#include "init.c"
#undef receive_message

static void look_at_words(const char **words)
{
    for (; words != NULL && *words != NULL; ++words)
        if (strlen(*words) > PROTOCOL_LONG_MESSAGE_BYTES)
            abort();
}

pid_t start_program(const struct program *program, const char **about)
{
    look_at_words(program->words);
    look_at_words(program->variables);
    *about = program->words[0] != NULL ? program->words[0] : "";
    return fake_pid(1);
}

void limits_of(const struct start *command, struct limits *limits)
{
    *limits = (struct limits){.stack_bytes = command->stack_bytes, .processes = command->processes};
}

void kill_everything(void)
{
}

int open_terminal(uint32_t rows, uint32_t columns, const char **path)
{
    (void)rows;
    (void)columns;
    *path = "terminal";
    return fake_descriptor();
}

/* A program waits where the tape says so. */
static bool waits;

bool prestart_is_waiting(void)
{
    return waits;
}

int prestart_held_file(const char **name)
{
    *name = "main.py";
    return waits ? FAKE_DESCRIPTOR : -1;
}

void prestart_kill(void)
{
    waits = false;
}

pid_t prestart_release(const char **words, const struct limits *limits)
{
    (void)limits;
    look_at_words(words);
    waits = false;
    return fake_pid(1);
}

int prestart_start(const struct program *program, const char *main, bool held)
{
    (void)program;
    (void)main;
    (void)held;
    return -1;
}

int prestart_timeout_ms(void)
{
    return -1;
}

int prestart_renew(void)
{
    return -1;
}

void supervisor_limit(uint64_t bytes)
{
    (void)bytes;
}

int supervisor_descriptor(void)
{
    return -1;
}

void supervisor_answer(void)
{
}

void sample(void)
{
}

void sampling_start(uint64_t memory_bytes, uint64_t cpu_ms, int64_t before_us, uint64_t open_files)
{
    (void)memory_bytes;
    (void)cpu_ms;
    (void)before_us;
    (void)open_files;
}

uint32_t sampling_exceeded(void)
{
    return 0;
}

uint64_t sampling_peak_bytes(void)
{
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static struct sandbox sandbox; /* longjmp(3) leaves them alone */
    static struct make make;
    static struct ready ready;
    rest = data;
    rest_bytes = bytes;
    begin_input(&rest, &rest_bytes, true);
    waits = fake_number() & 1;
    make = (struct make){.kind = KIND_MAKE};
    sandbox = (struct sandbox){.make = &make, .link = FAKE_DESCRIPTOR};
    if (setjmp(fake_end) == 0)
        serve_command(&sandbox, &ready);
    return 0;
}
