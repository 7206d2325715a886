/* No system call that changes anything is made by what is fuzzed: this header comes before each file (-include), and each call
 * by its name becomes a function of fakes.c. A test tells them what they answer by a tape, its bytes; at its end all succeed.
 *
 * In parentheses, `(close)(file)`, a name is the kernel's own. */
#ifndef FIREBOX_FAKES_H
#define FIREBOX_FAKES_H

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* Descriptors from here on are made up. */
enum { FAKE_DESCRIPTOR = 1 << 20 };

/* Begin a test. inside: every path must be a relative one that stays below the working directory. */
void fakes_begin(const uint8_t *tape, size_t bytes, bool inside);

/* Where `_exit` goes. */
extern jmp_buf fake_end;

/* Take a number off the tape. */
unsigned fake_number(void);

/* Return 0, or -1 with errno. */
int fake_outcome(void);

/* The same for a call about a path, which is looked at. */
int fake_path(const char *path);

int fake_descriptor(void);
int fake_open(const char *path);
int fake_close(int descriptor);
pid_t fake_pid(pid_t least);
pid_t fake_wait(int *status);
long fake_read(void *data, size_t bytes);
long fake_written(size_t bytes);
long fake_copied(int from, size_t bytes);
long fake_write(const void *data, size_t bytes);
long fake_send(const struct msghdr *header);
int fake_poll(struct pollfd *polled, unsigned long count);
int fake_stat(const char *path, struct stat *status);
int fake_limit(struct rlimit *limit);
int fake_pipe(int ends[2]);
long fake_syscall(long number, ...);
_Noreturn void fake_exit(void);
void *__wrap_allocate(size_t bytes); /* by -Wl,--wrap=allocate */

#ifndef FAKES_NOT_HERE
#define mkdir(path, mode) ((void)(mode), fake_path(path))
#define mkdirat(folder, path, mode) ((void)(folder), (void)(mode), fake_path(path))
#define chmod(path, mode) ((void)(mode), fake_path(path))
#define lchown(path, uid, gid) ((void)(uid), (void)(gid), fake_path(path))
#define unlink(path) fake_path(path)
#define unlinkat(folder, path, flags) ((void)(folder), fake_path(path))
#define rmdir(path) fake_path(path)
#define symlink(content, path) (fake_path(content), fake_path(path))
#define mknod(path, mode, device) ((void)(mode), (void)(device), fake_path(path))
#define mount(source, path, type, flags, options) \
    (fake_path(source), fake_path(type), fake_path(options), (void)(flags), fake_path(path))
#define umount2(path, flags) fake_path(path)
#define chdir(path) fake_path(path)
#define openat(folder, path, flags, mode) ((void)(folder), (void)(flags), (void)(mode), fake_open(path))
#define close(descriptor) fake_close(descriptor)
#define stat(path, status) fake_stat(path, status)
#define fstatat(folder, path, status, flags) fake_stat(path, status)
#define fchmod(file, mode) ((void)(file), (void)(mode), fake_outcome())
#define ftruncate(file, bytes) ((void)(file), (void)(bytes), fake_outcome())
#define fcntl(descriptor, ...) ((void)(descriptor), fake_descriptor())
#define dup2(from, to) (fake_outcome() < 0 ? -1 : (to))
#define dup3(from, to, flags) (fake_outcome() < 0 ? -1 : (to))
#define read(file, data, bytes) ((void)(file), fake_read(data, bytes))
#define pread(file, data, bytes, at) ((void)(file), (void)(at), fake_read(data, bytes))
#define readlinkat(folder, path, data, bytes) ((void)(folder), fake_path(path), fake_read(data, bytes))
#define write(file, data, bytes) ((void)(file), fake_write(data, bytes))
#define pwrite(file, data, bytes, at) ((void)(file), fake_write(data, bytes))
#define sendfile(to, from, at, bytes) ((void)(to), (void)(at), fake_copied(from, bytes))
#define sendmsg(link, header, flags) ((void)(link), fake_send(header))
#define pipe2(ends, flags) fake_pipe(ends)
#define eventfd(value, flags) fake_descriptor()
#define signalfd(file, signals, flags) ((void)(signals), fake_descriptor())
#define socket(family, type, protocol) fake_descriptor()
#define ioctl(file, request, argument) ((void)(file), (void)(argument), fake_outcome())
#define prctl(...) fake_outcome()
#define personality(persona) fake_outcome()
#define unshare(flags) fake_outcome()
#define sethostname(name, bytes) fake_outcome()
#define setsid() fake_outcome()
#define signal(number, handler) ((void)(number))
#define kill(pid, number) ((void)(pid), (void)(number), fake_outcome())
#define waitpid(pid, status, flags) fake_wait(status)
#define getrlimit(resource, limit) fake_limit(limit)
#define setrlimit(resource, limit) ((void)(limit), fake_outcome())
#define poll(polled, count, timeout) ((void)(timeout), fake_poll(polled, count))
#define usleep(time) ((void)0)
#define syscall(...) fake_syscall(__VA_ARGS__)
#define _exit(status) fake_exit()
#endif

#endif
