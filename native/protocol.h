/* The messages between the server, the launcher and PID 1 of a sandbox.
 *
 * Written by `make docs` from src/firebox/sandbox/protocol/messages.py, which explains every field:
 * change it there. */
#ifndef FIREBOX_PROTOCOL_H
#define FIREBOX_PROTOCOL_H

#include <stdint.h>

#define PROTOCOL_VERSION 2U
#define PROTOCOL_MESSAGE_BYTES 131072U
#define PROTOCOL_LONG_MESSAGE_BYTES 16777216U
#define PROTOCOL_NO_WORDS 4294967295U
#define PROTOCOL_COLLECT_INDEX_BYTES 8388608U
#define PROTOCOL_GATE 200U
#define PROTOCOL_RESTORED 201U
#define PROTOCOL_TEMPLATE "template"
#define PROTOCOL_RANDOM ".firebox-random"
#define PROTOCOL_NETLINK_SOCKETS 16U
#define PROTOCOL_SYSTEM_V_QUEUES 32U
#define PROTOCOL_SEMAPHORES_A_SET 64U

enum kind {
    KIND_LONG = 1,
    KIND_CONFIGURE = 2,
    KIND_CONFIGURED = 3,
    KIND_PREPARE = 4,
    KIND_PREPARED = 5,
    KIND_MAKE = 6,
    KIND_KILL = 7,
    KIND_END = 8,
    KIND_ENDED = 9,
    KIND_FAILED = 10,
    KIND_READY = 11,
    KIND_START = 12,
    KIND_STARTED = 13,
    KIND_REFUSED = 14,
    KIND_SIGNAL = 15,
    KIND_STOP = 16,
    KIND_EXITED = 17,
    KIND_COLLECT = 18,
};

enum phase {
    PHASE_MESSAGE = 1,
    PHASE_IDENTITY = 2,
    PHASE_LEAN_ROOT = 3,
    PHASE_PREPARE = 4,
    PHASE_CLONE = 5,
    PHASE_CGROUP = 6,
    PHASE_NAMESPACES = 7,
    PHASE_TREE = 8,
    PHASE_OWN_USER = 9,
    PHASE_CAPABILITIES = 10,
    PHASE_LIMITS = 11,
    PHASE_FILTER = 12,
    PHASE_SERVE = 13,
    PHASE_FILES = 14,
    PHASE_TERMINAL = 15,
    PHASE_PROGRAM = 16,
};

enum operation {
    OPERATION_FOLDER = 1,
    OPERATION_FOLDERS = 2,
    OPERATION_LINK = 3,
    OPERATION_NODE = 4,
    OPERATION_FILE = 5,
    OPERATION_COPY = 6,
    OPERATION_MOUNT = 7,
    OPERATION_RESTRICT = 8,
    OPERATION_PIVOT = 9,
    OPERATION_IMAGE = 10,
    OPERATION_UNMOUNT = 11,
    OPERATION_CGROUP_WRITE = 12,
    OPERATION_CGROUP_OPEN = 13,
    OPERATION_CGROUP_EVENT = 14,
    OPERATION_LIMIT = 15,
    OPERATION_USER_LIMIT = 16,
};

enum configure_flag {
    CONFIGURE_FLAG_INTO_CGROUP = 1,
};

enum make_flag {
    MAKE_FLAG_OWN_USER_NAMESPACE = 1,
    MAKE_FLAG_SAMPLED = 2,
    MAKE_FLAG_PRESTART = 4,
    MAKE_FLAG_HELD = 8,
};

enum start_flag {
    START_FLAG_TERMINAL = 1,
    START_FLAG_CAPTURE = 2,
    START_FLAG_OTHER_PID = 4,
};

enum exceeded {
    EXCEEDED_NOTHING = 0,
    EXCEEDED_MEMORY = 1,
    EXCEEDED_CPU_TIME = 2,
};

enum left_out {
    LEFT_OUT_ERROR = 0,
    LEFT_OUT_TOO_LARGE = 1,
    LEFT_OUT_TOO_MANY = 2,
    LEFT_OUT_TOO_MANY_ENTRIES = 3,
    LEFT_OUT_OUT_OF_TIME = 4,
    LEFT_OUT_NO_MATCH = 5,
    LEFT_OUT_NOT_REGULAR = 6,
    LEFT_OUT_FOLDER = 7,
};

struct long_message {
    uint32_t kind;
    uint32_t padding;
    uint64_t bytes;
};
_Static_assert(sizeof(struct long_message) == 16, "layout of long_message");

struct configure {
    uint32_t kind;
    uint32_t version;
    uint32_t flags;
    uint32_t uid_first;
    uint32_t uid_count;
    uint32_t cgroups;
    uint32_t padding;
    uint32_t uid_map_words;
    uint32_t gid_map_words;
    uint32_t text_bytes;
    uint32_t filter_bytes;
    uint32_t fallback_bytes;
};
_Static_assert(sizeof(struct configure) == 48, "layout of configure");

struct configured {
    uint32_t kind;
    uint32_t uid_count;
};
_Static_assert(sizeof(struct configured) == 8, "layout of configured");

struct step {
    uint32_t operation;
    uint32_t mode;
    uint64_t flags;
    uint32_t source;
    uint32_t target;
    uint32_t type;
    uint32_t options;
};
_Static_assert(sizeof(struct step) == 32, "layout of step");

struct prepare {
    uint32_t kind;
    uint32_t number;
    uint32_t steps;
    uint32_t text_bytes;
};
_Static_assert(sizeof(struct prepare) == 16, "layout of prepare");

struct prepared {
    uint32_t kind;
    uint32_t number;
};
_Static_assert(sizeof(struct prepared) == 8, "layout of prepared");

struct make {
    uint32_t kind;
    uint32_t number;
    uint32_t flags;
    uint32_t inside_uid;
    uint32_t cgroup_steps;
    uint32_t tree_steps;
    uint32_t limit_steps;
    uint32_t words;
    uint32_t variables;
    uint32_t main;
    uint64_t stack_bytes;
    uint32_t text_bytes;
    uint32_t filter_bytes;
};
_Static_assert(sizeof(struct make) == 56, "layout of make");

struct kill {
    uint32_t kind;
    uint32_t number;
};
_Static_assert(sizeof(struct kill) == 8, "layout of kill");

struct end {
    uint32_t kind;
    uint32_t number;
};
_Static_assert(sizeof(struct end) == 8, "layout of end");

struct ended {
    uint32_t kind;
    uint32_t number;
};
_Static_assert(sizeof(struct ended) == 8, "layout of ended");

struct failed {
    uint32_t kind;
    uint32_t number;
    uint32_t phase;
    uint32_t step;
    uint32_t error;
    uint32_t text_bytes;
};
_Static_assert(sizeof(struct failed) == 24, "layout of failed");

struct ready {
    uint32_t kind;
    uint32_t pid;
};
_Static_assert(sizeof(struct ready) == 8, "layout of ready");

struct packed_file {
    uint64_t offset;
    uint64_t size;
    uint32_t mode;
    uint32_t pack;
    uint32_t name;
    uint32_t padding;
};
_Static_assert(sizeof(struct packed_file) == 32, "layout of packed_file");

struct start {
    uint32_t kind;
    uint32_t flags;
    uint32_t rows;
    uint32_t columns;
    uint64_t cpu_ms;
    uint64_t memory_bytes;
    uint64_t stack_bytes;
    uint64_t file_size_bytes;
    uint64_t processes;
    uint64_t open_files;
    uint32_t words;
    uint32_t variables;
    uint32_t resume_words;
    uint32_t packs;
    uint32_t files;
    uint32_t text_bytes;
};
_Static_assert(sizeof(struct start) == 88, "layout of start");

struct started {
    uint32_t kind;
    uint32_t prestarted;
};
_Static_assert(sizeof(struct started) == 8, "layout of started");

struct refused {
    uint32_t kind;
    uint32_t phase;
    uint32_t error;
    uint32_t text_bytes;
};
_Static_assert(sizeof(struct refused) == 16, "layout of refused");

struct signal {
    uint32_t kind;
    uint32_t signal;
};
_Static_assert(sizeof(struct signal) == 8, "layout of signal");

struct stop {
    uint32_t kind;
    uint32_t padding;
};
_Static_assert(sizeof(struct stop) == 8, "layout of stop");

struct exited {
    uint32_t kind;
    int32_t status;
    uint32_t exceeded;
    uint32_t padding;
    uint64_t cpu_us;
    uint64_t memory_peak_bytes;
};
_Static_assert(sizeof(struct exited) == 32, "layout of exited");

struct collect {
    uint32_t kind;
    uint32_t patterns;
    uint64_t max_bytes;
    uint64_t max_files;
    uint32_t budget_ms;
    uint32_t text_bytes;
};
_Static_assert(sizeof(struct collect) == 32, "layout of collect");

struct collect_index {
    uint32_t files;
    uint32_t left_out;
    uint32_t text_bytes;
    uint32_t padding;
    uint64_t cpu_us;
};
_Static_assert(sizeof(struct collect_index) == 24, "layout of collect_index");

struct collected_file {
    uint64_t size;
    uint32_t mode;
    uint32_t name;
};
_Static_assert(sizeof(struct collected_file) == 16, "layout of collected_file");

struct collected_left_out {
    uint32_t name;
    uint32_t reason;
    uint32_t error;
    uint32_t padding;
};
_Static_assert(sizeof(struct collected_left_out) == 16, "layout of collected_left_out");

#endif
