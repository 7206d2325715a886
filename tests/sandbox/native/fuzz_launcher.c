/* Fuzz the messages of the launcher, and the creation of sandboxes as far as possible without a kernel. */
#include "copy.h"
#include "fuzz_messages.h"
#include "image.h"
#include "init.h"
#include "supervisor.h"

#include <stdlib.h>

#define main launcher_main /* below the headers: a structure has a member of this name */
#include "launcher.c"
#undef main

int enter_namespaces(const char **map_uids, const char **map_gids)
{
    for (; *map_uids != NULL; ++map_uids)
        fake_path(*map_uids);
    for (; *map_gids != NULL; ++map_gids)
        fake_path(*map_gids);
    return 1 - (int)fake_number() % 3;
}

int enter_lean_root(void)
{
    return fake_outcome();
}

int copy_readable(const char *source, const char *target)
{
    return fake_path(source) < 0 ? -1 : fake_path(target);
}

int mount_image(const char *path, const char *folder, const char *tree)
{
    return fake_path(path) < 0 || fake_path(tree) < 0 ? -1 : fake_path(folder);
}

void supervisor_start(int listener)
{
    (void)listener;
}

/* Read what PID 1 uses of its message. */
void serve_command(const struct sandbox *sandbox, const struct ready *ready)
{
    uint32_t offset = 0;
    (void)ready;
    if (sandbox->context.meter_count > METERS || sandbox->context.cgroup_count != 0)
        abort();
    const char **words = words_at(&sandbox->text, &offset, sandbox->make->words);
    const char **variables = words == NULL ? NULL : words_at(&sandbox->text, &offset, sandbox->make->variables);
    for (; words != NULL && *words != NULL; ++words)
        fake_path(*words);
    for (; variables != NULL && *variables != NULL; ++variables)
        fake_path(*variables);
    fake_path(string_at(&sandbox->text, sandbox->make->main));
}

static void forget_everything(void)
{
    memset(children, 0, sizeof children);
    memset(uid_taken, 0, sizeof uid_taken);
    memset(cgroups, 0, sizeof cgroups);
    memset(&settings, 0, sizeof settings);
    children_used = first_uid = uid_count = 0;
    cgroup_count = 0;
    into_cgroup = cgroups_remain = false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static struct message message; /* longjmp(3) leaves it alone */
    static enum phase phase;
    static int done;
    message = (struct message){0};
    done = 0;
    forget_everything();
    begin_input(&data, &bytes, false);
    uid_count = fake_number() & 3;
    while (done == 0 && next_message(&data, &bytes, &message)) {
        if (setjmp(fake_end) == 0) {
            if (message_kind(&message) == KIND_CONFIGURE && cgroup_count == 0)
                done = configure(&message, &phase);
            else
                done = handle_message(&message);
            if (fake_number() & 1)
                reap();
            if (cgroups_remain)
                remove_remaining_cgroups();
        }
        close_descriptors(&message);
    }
    if (setjmp(fake_end) == 0)
        shut_down();
    return 0;
}
