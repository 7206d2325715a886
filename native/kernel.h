/* Thin wrappers of system calls, and what every file needs.
 *
 * A function that fails returns -1 and sets `failure` to the call and its errno. Only `allocate` allocates. The program has one
 * thread; a vfork child shares `failure` with its parent on purpose. */
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

/* Set `failure`. Returns -1. */
int fail(const char *call, int number);

/* Return the result of a call; set `failure` when it is -1. */
long check(const char *call, long returned);

/* Allocate zeroed memory that is never freed. Returns NULL on failure. */
void *allocate(size_t bytes);

/* Open a file, close-on-exec. */
int open_at(int folder, const char *name, int flags, unsigned mode);

/* Read a small file and append a NUL. Returns the number of bytes, at most room - 1. */
long read_file(int folder, const char *name, char *buffer, size_t room);

/* Write a string to an existing file. */
int write_file(int folder, const char *name, const char *text);

/* An entry of a folder. Source: getdents64(2). */
struct linux_dirent64 {
    uint64_t d_ino;
    int64_t d_off;
    uint16_t d_reclen;
    uint8_t d_type;
    char d_name[];
};

/* Call `entry` for each entry of an open folder but "." and "..", until it returns false. Returns 0 or an errno. */
int each_entry(int folder, bool (*entry)(int folder, const struct linux_dirent64 *entry, void *context), void *context);

/* Set the soft and hard resource limit of a process; pid 0 is this one. hard_limit: of this process. */
int set_limit(int pid, int resource, uint64_t value);
uint64_t hard_limit(int resource);

/* Switch to a user permanently, without supplementary groups. */
int become_user(uid_t uid, gid_t gid);

/* Map one uid and one gid into the user namespace of this process, both as `inside`. proc: a descriptor of a procfs. */
int map_ids(int proc, uid_t inside, uid_t uid, gid_t gid);

/* Write all bytes. */
int write_all(int descriptor, const void *data, size_t bytes);

/* Format an unsigned number. Returns its first character, inside the buffer. */
char *decimal(uint64_t number, char buffer[static 21]);

/* Parse an unsigned decimal number after blanks; UINT64_MAX when it is larger. Advances *text. */
uint64_t parse_decimal(const char **text);

/* Saturating arithmetic. */
uint64_t bounded_sum(uint64_t one, uint64_t other);
uint64_t bounded_product(uint64_t one, uint64_t other);

/* Milliseconds of the monotonic clock; microseconds of any clock of clock_gettime(2). */
int64_t now_ms(void);
int64_t clock_us(int clock);

/* Return the CPU time of all reaped children, in microseconds. */
int64_t children_cpu_us(void);

#endif
