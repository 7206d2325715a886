#include "identity.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernel.h"

/* Run a program. Returns its exit status, or 1. */
static int run(const char **words)
{
    static char *const environment[] = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", NULL};
    int status;
    pid_t pid = vfork();
    if (pid == 0) {
        execve(words[0], (char *const *)(uintptr_t)words, environment);
        _exit(1);
    }
    if (pid < 0 || waitpid(pid, &status, 0) < 0)
        return 1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

/* Fork a process that maps subordinate uids and gids into the user namespace that its parent is about to enter: newuidmap must
 * run outside of it. It starts when a byte arrives on `begin`. Returns its pid. Source: newuidmap(1). */
static pid_t start_mapper(const char **map_uids, const char **map_gids, const int begin[2])
{
    pid_t pid = fork();
    if (pid == 0) {
        char byte;
        close(begin[1]);
        dup2(1, 2); /* keep their errors out of the server's log: without a map sandboxes share a uid */
        if (read(begin[0], &byte, 1) != 1)
            _exit(1);
        _exit(run(map_uids) != 0 || run(map_gids) != 0);
    }
    return pid;
}

/* Map only root of the user namespace. */
static int map_own_ids(uid_t uid, gid_t gid)
{
    int proc = open_at(AT_FDCWD, "/proc", O_PATH | O_DIRECTORY, 0);
    int done = proc < 0 ? -1 : map_ids(proc, 0, uid, gid);
    if (proc >= 0)
        close(proc);
    return done;
}

static int enter_user_namespace(const char **map_uids, const char **map_gids)
{
    uid_t uid = geteuid();
    gid_t gid = getegid();
    int begin[2], status = 1;
    pid_t mapper = -1;
    if (check("pipe", pipe2(begin, O_CLOEXEC)) < 0)
        return -1;
    if (map_uids[0] != NULL && map_gids[0] != NULL)
        mapper = start_mapper(map_uids, map_gids, begin);
    close(begin[0]);
    if (check("unshare", unshare(CLONE_NEWUSER | CLONE_NEWNS)) < 0)
        return -1;
    if (mapper > 0) {
        if (write_all(begin[1], "b", 1) < 0 || waitpid(mapper, &status, 0) < 0)
            status = 1;
    }
    close(begin[1]);
    if (mapper > 0 && status == 0) {
        if (check("setresgid", syscall(SYS_setresgid, 0, 0, 0)) < 0 || check("setresuid", syscall(SYS_setresuid, 0, 0, 0)) < 0)
            return -1;
        return 1;
    }
    return map_own_ids(uid, gid);
}

int enter_namespaces(const char **map_uids, const char **map_gids)
{
    if (geteuid() == 0)
        return check("unshare", unshare(CLONE_NEWNS)) < 0 ? -1 : 1;
    return enter_user_namespace(map_uids, map_gids);
}

int enter_lean_root(void)
{
    /* Unmounts of the host propagate to us, else its disks would stay busy. Nothing propagates to the host. */
    if (check("mount", mount("none", "/", NULL, MS_REC | MS_SLAVE, NULL)) < 0)
        return -1;
    /* /tmp always exists; the host's /tmp is visible below /host afterwards. */
    if (check("mount tmpfs", mount("firebox", "/tmp", "tmpfs", MS_NOSUID, "mode=755,size=64m")) < 0)
        return -1;
    static const char *const folders[] = {"/tmp/host", "/tmp/empty", "/tmp/new", "/tmp/roots", "/tmp/images"};
    for (size_t index = 0; index < sizeof folders / sizeof *folders; ++index)
        if (check("mkdir", mkdir(folders[index], 0755)) < 0)
            return -1;
    if (check("pivot_root", syscall(SYS_pivot_root, "/tmp", "/tmp/host")) < 0)
        return -1;
    return (int)check("chdir", chdir("/"));
}
