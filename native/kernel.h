/* The kernel as this program uses it: one function a system call, under the kernel's own names.
 *
 * A function that fails returns -1 and leaves in `failure` which call it was and why. Nothing here allocates but `allocate`.
 * The program has one thread; a vfork child shares `failure` with its parent on purpose. */
#ifndef FIREBOX_KERNEL_H
#define FIREBOX_KERNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct failure {
    const char *call; /* a string that is never freed */
    int number;       /* errno */
};
extern struct failure failure;

/* Note a failure. Returns -1. */
int fail(const char *call, int number);

/* Return what a call returned, having noted its errno when that is -1. */
long check(const char *call, long returned);

/* Allot zeroed memory that is never given back. Returns NULL when there is none. */
void *allocate(size_t bytes);

/* Open a file, close-on-exec. */
int open_at(int folder, const char *name, int flags, unsigned mode);

/* Read a small file from its beginning, and end it with a NUL. Returns the number of bytes, at most room - 1. */
long read_file(int folder, const char *name, char *buffer, size_t room);

/* Write a string to a file that exists. */
int write_file(int folder, const char *name, const char *text);

/* An entry of a folder, as getdents64(2) has it. */
struct linux_dirent64 {
    uint64_t d_ino;
    int64_t d_off;
    uint16_t d_reclen;
    uint8_t d_type;
    char d_name[];
};

/* Read entries of a folder into a buffer that is aligned like them. Returns how many bytes, 0 at the end. */
long read_folder(int folder, void *entries, size_t room);

/* Lower a resource limit of a process, soft and hard; pid 0 is this one. Return what the hard limit of this process is. */
int set_limit(int pid, int resource, uint64_t value);
uint64_t hard_limit(int resource);

/* Become a user, with no supplementary groups and for good. */
int become_user(uid_t uid, gid_t gid);

/* Map one uid and one gid into the user namespace of this process, both as `inside`. proc: a folder, a procfs. */
int map_ids(int proc, uid_t inside, uid_t uid, gid_t gid);

/* Write everything. */
int write_all(int descriptor, const void *data, size_t bytes);

/* Format an unsigned number. Returns its first character, which lies in the buffer. */
char *decimal(uint64_t number, char buffer[static 21]);

/* Read an unsigned decimal number, UINT64_MAX where it is larger, skipping blanks before it. *text is moved behind it. */
uint64_t parse_decimal(const char **text);

/* Add and multiply, up to UINT64_MAX. */
uint64_t bounded_sum(uint64_t one, uint64_t other);
uint64_t bounded_product(uint64_t one, uint64_t other);

/* Milliseconds of the monotonic clock, and microseconds of a clock of clock_gettime(2). */
int64_t now_ms(void);
int64_t clock_us(int clock);

#endif
