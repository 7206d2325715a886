"""Which system calls a program may make, each group with its reason, and the filter that holds it.

A filter is one program that answers for every call:

* what is in `ALLOWED` passes, what is in `DENIED` fails with EPERM, everything else (newer than this table) fails with ENOSYS,
  so that libraries fall back to what they used before;
* calls that are allowed in general and not with certain arguments have rules. They compare the bits the kernel looks at, so
  that garbage in the upper half of a register does not slip by;
* PID 1 decides some, because what they take must be counted (see `supervisor`). Where that is not possible they are refused.

A call made through a foreign ABI (32-bit `int 0x80`, x32) kills the process.
"""

from __future__ import annotations

import errno
import os
from functools import cache
from typing import NamedTuple

from firebox.sandbox.plan.bpf import (
    ALLOW,
    KILL_PROCESS,
    NOTIFY,
    Condition,
    Rule,
    Rules,
    any_bit,
    compiled,
    errno_action,
    low,
    null,
)
from firebox.sandbox.plan.system_call_numbers import system_call_numbers

ALLOWED: dict[str, str] = {
    "files by name and descriptor": """
        access faccessat faccessat2 open openat openat2 creat close close_range stat lstat fstat newfstatat statx statfs fstatfs
        readlink readlinkat getcwd chdir fchdir mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2 link linkat symlink
        symlinkat chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat utime utimes utimensat futimesat truncate ftruncate
        fallocate fadvise64 umask mknod mknodat getdents getdents64 fsync fdatasync sync_file_range flock fcntl
        setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr removexattr lremovexattr
        fremovexattr""",
    "reading and writing": """
        read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 lseek sendfile copy_file_range splice tee
        vmsplice readahead dup dup2 dup3 pipe pipe2 ioctl memfd_create""",
    "waiting": """
        poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 eventfd eventfd2
        signalfd signalfd4 timerfd_create timerfd_settime timerfd_gettime inotify_init inotify_init1 inotify_add_watch
        inotify_rm_watch""",
    "memory": """
        brk mmap munmap mremap mprotect madvise mincore msync mlock mlock2 mlockall munlock munlockall pkey_alloc pkey_free
        pkey_mprotect membarrier get_mempolicy set_mempolicy mbind set_mempolicy_home_node map_shadow_stack mseal""",
    "processes and threads; new namespaces are refused by the flags of clone, clone3 hides its flags and is not here": """
        clone fork vfork execve execveat exit exit_group wait4 waitid getpid getppid gettid getpgid getpgrp setpgid getsid setsid
        set_tid_address set_robust_list get_robust_list futex futex_waitv futex_wake futex_wait futex_requeue rseq arch_prctl
        prctl sched_yield sched_getaffinity sched_setaffinity sched_getparam sched_setparam sched_getscheduler
        sched_setscheduler sched_getattr sched_setattr sched_get_priority_max sched_get_priority_min sched_rr_get_interval
        getpriority setpriority ioprio_get ioprio_set getrlimit setrlimit prlimit64 getrusage times getcpu pidfd_open
        set_thread_area get_thread_area restart_syscall seccomp landlock_create_ruleset landlock_add_rule
        landlock_restrict_self""",
    "signals; the process tree ends at the PID namespace": """
        kill tkill tgkill rt_sigaction rt_sigprocmask rt_sigpending rt_sigqueueinfo rt_tgsigqueueinfo rt_sigreturn
        rt_sigsuspend rt_sigtimedwait sigaltstack pause pidfd_send_signal""",
    "identity; nothing can be gained without capabilities": """
        getuid geteuid getgid getegid getresuid getresgid getgroups setuid setgid setreuid setregid setresuid setresgid
        setgroups setfsuid setfsgid capget capset""",
    "time": """
        time gettimeofday clock_gettime clock_getres clock_nanosleep nanosleep alarm getitimer setitimer timer_create
        timer_settime timer_gettime timer_getoverrun timer_delete""",
    "the machine": "uname sysinfo getrandom",
    "sockets inside the sandbox's own network; families are held by rules, see below": """
        socketpair bind listen accept accept4 connect getsockname getpeername getsockopt setsockopt shutdown sendto
        recvfrom sendmsg recvmsg sendmmsg recvmmsg""",
    "System V and POSIX queues, semaphores and memory of the sandbox's own IPC namespace": """
        shmget shmat shmdt shmctl semget semop semtimedop semctl msgget msgsnd msgrcv msgctl mq_open mq_unlink
        mq_timedsend mq_timedreceive mq_notify mq_getsetattr""",
}

DENIED: dict[str, str] = {
    "mounts and roots: the tree is fixed": """
        mount umount2 pivot_root chroot open_tree move_mount fsopen fsconfig fsmount fspick mount_setattr""",
    "namespaces": "unshare setns",
    "other processes' memory and descriptors": "ptrace process_vm_readv process_vm_writev process_madvise pidfd_getfd kcmp",
    "kernel surface with a history": """
        bpf perf_event_open userfaultfd add_key request_key keyctl fanotify_init fanotify_mark modify_ldt lookup_dcookie""",
    "handles that step around path checks": "open_by_handle_at name_to_handle_at",
    "the machine itself": """
        reboot kexec_load kexec_file_load init_module finit_module delete_module swapon swapoff syslog acct quotactl
        quotactl_fd settimeofday clock_settime clock_adjtime adjtimex sethostname setdomainname iopl ioperm vhangup
        nfsservctl""",
    "moving pages of others": "move_pages migrate_pages",
}

ABSENT = {
    "io_uring_setup io_uring_enter io_uring_register": "does the work of other calls in the kernel, where no filter sees it",
    "io_setup": "the number of its contexts is bounded for the whole machine, so one run could take them all",
    "clone3": "its flags lie in memory, where no filter sees them; libraries fall back to clone",
    "memfd_secret": "its pages leave the kernel's own map, which then is split for good and slower for the whole machine",
}
"""Known and left out on purpose: a program is told ENOSYS, as for everything that this table does not name."""

IGNORED: dict[str, str] = {
    "what a program writes is memory; asked for in a loop it would keep the disks of the host busy": "sync syncfs",
}
"""Answered with success, and nothing is done."""

UNCOUNTED = "memfd_create splice tee vmsplice"
"""Absent where no cgroup counts memory: pages that they hold belong to no process that could be asked."""

NOT_KEPT = "pkey_alloc membarrier set_mempolicy mbind set_mempolicy_home_node"
"""Absent while a template is made: what they tell the kernel would be missing in what is restored. V8 has a key where it can."""

SOCKET_FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10}
AF_NETLINK, NETLINK_ROUTE = 16, 0
NETLINK_TYPES = {"SOCK_DGRAM": 2, "SOCK_RAW": 3}
PROTOCOLS = {
    "TCP": (("AF_INET", "AF_INET6"), 1, (0, 6)),
    "UDP": (("AF_INET", "AF_INET6"), 2, (0, 17)),
    "ICMP": (("AF_INET",), 2, (1,)),
    "ICMPv6": (("AF_INET6",), 2, (58,)),
}
"""Families, type and protocol numbers that may be asked for. Anything else makes the kernel load a module, or call modprobe
outside of every limit: SCTP, DCCP, L2TP ... have a history."""

PERSONALITIES = {"PER_LINUX": 0, "read only": 0xFFFFFFFF}

_CLONE_NEW_FLAGS = {
    "NEWNS": 0x00020000,
    "NEWCGROUP": 0x02000000,
    "NEWUTS": 0x04000000,
    "NEWIPC": 0x08000000,
    "NEWUSER": 0x10000000,
    "NEWPID": 0x20000000,
    "NEWNET": 0x40000000,
    "NEWTIME": 0x00000080,
}
REFUSED_IOCTLS: dict[str, dict[str, int]] = {
    "types into a terminal": {"TIOCSTI": 0x5412, "TIOCLINUX": 0x541C},
    "loads a line discipline as a kernel module": {"TIOCSETD": 0x5423},
    "loads the bridge and VLAN modules": {
        "SIOCGIFBR": 0x8940,
        "SIOCSIFBR": 0x8941,
        "SIOCGIFVLAN": 0x8982,
        "SIOCSIFVLAN": 0x8983,
        "SIOCBRADDBR": 0x89A0,
        "SIOCBRDELBR": 0x89A1,
    },
}

REFUSED_SOCKET_OPTIONS: dict[str, tuple[int, dict[str, tuple[int, int]]]] = {
    "compiles a filter into memory that has one limit for the machine and counts for nobody": (
        errno.EPERM,
        {
            "SO_ATTACH_FILTER": (1, 26),
            "SO_ATTACH_BPF": (1, 50),
            "SO_ATTACH_REUSEPORT_CBPF": (1, 51),
            "SO_ATTACH_REUSEPORT_EBPF": (1, 52),
        },
    ),
    "the kernel has 4,096 flow labels for the whole machine": (errno.ENOPROTOOPT, {"IPV6_FLOWLABEL_MGR": (41, 32)}),
    "keys of routers; the kernel counts their memory for nobody": (
        errno.ENOPROTOOPT,
        {"TCP_MD5SIG": (6, 14), "TCP_MD5SIG_EXT": (6, 32), "TCP_AO_ADD_KEY": (6, 38)},
    ),
    "TLS in the kernel has a history": (errno.ENOENT, {"TCP_ULP": (6, 31)}),
}
"""why -> (error, name -> (level, option))."""

OTHER_RULES = {
    "seccomp(SECCOMP_SET_MODE_FILTER), prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER)": "EINVAL, as from a kernel without it: "
    "every filter is compiled into memory that has one limit for the machine (net.core.bpf_jit_limit), counts for nobody and "
    "stays as long as its process, so that some thousands of tiny ones in each of many processes fill it; then no sandbox "
    "could load its own. Neither a cgroup nor a resource limit bounds their number, and the strict mode remains",
    "setsockopt(SO_RCVBUF)": "answered with success and ignored, as where net.core.rmem_max is small: what waits in a netlink "
    "socket counts for nobody; TCP adjusts its own",
    "mmap(MAP_HUGETLB), memfd_create(MFD_HUGETLB), shmget(SHM_HUGETLB)": "ENOMEM, as from an empty pool: the host's huge "
    "pages are one pool for the machine, outside of the memory limit",
    "prctl(PR_SET_PTRACER)": "EPERM: nobody traces anybody here",
    "prctl(PR_SCHED_CORE)": "EPERM: it would keep the other half of a processor core idle",
    "prlimit64(1, ...)": "EPERM: PID 1 has the same uid, so a program could take its descriptors or its life",
    "sched_set*(1, ...), setpriority and ioprio_set of PID 1 or of a user": "EPERM: "
    "where no cgroup counts PID 1 does, and it must not have to wait for a processor that a program keeps busy",
    "setrlimit(RLIMIT_CORE)": "answered with success and ignored: the limit of one byte is what keeps the host's crash "
    "handler away, lowering it to 0 would call it (core(5))",
}
"""What `_by_arguments` holds besides the tables, in words, for the documentation."""

FREQUENT = """
    mmap ioctl newfstatat openat close read futex rt_sigaction mprotect rt_sigprocmask fcntl lseek write munmap readlink brk
    pread64 fstat stat access getpid epoll_wait epoll_pwait poll ppoll gettid clock_gettime getrandom madvise sysinfo prctl
    recvmsg sendmsg sendto recvfrom wait4 clone execve"""
"""What Python, Node.js, Java, C programs, a compiler and shells call most (strace -c), the most expensive first: `mmap` and
`ioctl` have rules, so the kernel runs the filter for them; what always passes it lets pass itself."""

_INTERNET = (SOCKET_FAMILIES["AF_INET"], SOCKET_FAMILIES["AF_INET6"])
_PR_SET_PTRACER = 0x59616D61
_PR_SCHED_CORE = 62
_RLIMIT_CORE = 4
_SOCK_TYPES, _SOCK_STREAM, _SOCK_DGRAM, _SOCK_RAW = 0xF, 1, 2, 3
_REFUSED_PROTOCOLS = (1, 6, 17, 33, 58, 115, 132, 136, 262)
_SCHEDULING = ("sched_setaffinity", "sched_setattr", "sched_setparam", "sched_setscheduler")
_PRIO_USER, _IOPRIO_WHO_USER = 2, 3
_SECCOMP_SET_MODE_FILTER = 1
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_MAP_HUGETLB, _MFD_HUGETLB, _SHM_HUGETLB = 0x40000, 0x4, 0o4000
_MAP_SHARED_ANONYMOUS, _MAP_TYPE_AND_ANONYMOUS = 0x21, 0x2F
_PR_SET_DUMPABLE = 4
_IPC_PRIVATE, _IPC_CREAT = 0, 0o1000
_F_SETPIPE_SZ = 1031
_SOL_SOCKET, _SO_SNDBUF, _SO_RCVBUF = 1, 7, 8
_FAMILIES_WITH_A_NAME = 64
"""Above are none, and the kernel says so itself."""

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""AUDIT_ARCH_X86_64, AUDIT_ARCH_AARCH64."""
_X32 = 0x40000000
_PASS, _EPERM, _ENOSYS, _SUCCEED = (
    Rule(action) for action in (ALLOW, errno_action(errno.EPERM), errno_action(errno.ENOSYS), errno_action(0))
)


class Filters(NamedTuple):
    """Programs, each of them the whole filter of a sandbox. They refuse to load another.

    ask, ask_uncounted: PID 1 decides the supervised calls; to be loaded with a listener. refuse, refuse_uncounted: these calls
    are refused, for where no listener is possible. uncounted: where no cgroup counts memory.
    """

    ask: bytes
    refuse: bytes
    ask_uncounted: bytes
    refuse_uncounted: bytes


def compile_filters(machine: str | None = None) -> Filters:
    """Compile all filters. machine: as uname(2) has it, by default this one. Raises: OSError for one that has no table."""
    return Filters(
        compile_filter(ask=True, counted=True, machine=machine),
        compile_filter(ask=False, counted=True, machine=machine),
        compile_filter(ask=True, counted=False, machine=machine),
        compile_filter(ask=False, counted=False, machine=machine),
    )


@cache
def compile_filter(*, ask: bool, counted: bool, traces: bool = False, machine: str | None = None) -> bytes:
    """Compile one of `Filters`, or one for the making of a template.

    ask: PID 1 decides the supervised calls; False refuses them. counted: by cgroups. traces: programs may trace each
    other, which is for the making of templates only. machine: as uname(2) has it, by default this one. Raises: OSError for one
    that has no table.
    """
    machine = machine or os.uname().machine
    if machine not in _ARCHITECTURES:
        raise OSError(errno.ENOTSUP, f"there is no table of the system calls of {machine}")
    numbers = system_call_numbers(machine)
    rules = _by_name(ask=ask, counted=counted)
    if traces:
        rules["ptrace"] = (_PASS,)
        permitted = [Rule(ALLOW, (low(0, option),)) for option in (_PR_SET_PTRACER, _PR_SET_DUMPABLE)]
        rules["prctl"] = (*permitted, *rules["prctl"])
        rules.update(dict.fromkeys(NOT_KEPT.split(), (_ENOSYS,)))
    calls = {numbers[name]: rules[name] for name in rules if name in numbers}
    # The number -1, which tracers use for "no call", is none of x32.
    beyond = {_X32: (Rule(KILL_PROCESS),), 0xFFFFFFFF: (_ENOSYS,)} if machine == "x86_64" else {}
    frequent = FREQUENT.split()
    weights = {numbers[name]: 1000 // place for place, name in enumerate(frequent, 1) if name in numbers}
    return compiled(_ARCHITECTURES[machine], calls, (_ENOSYS,), beyond, weights)


def every_call() -> set[str]:
    """Return the names of all calls that a table here names."""
    listed = " ".join(names for table in (ALLOWED, DENIED, IGNORED) for names in table.values())
    return {*listed.split(), *" ".join(ABSENT).split(), *FREQUENT.split(), *_by_arguments(ask=True, counted=False)}


def _by_name(*, ask: bool, counted: bool) -> dict[str, Rules]:
    """Return the rules of every call that does not simply fail with ENOSYS."""
    rules: dict[str, Rules] = {}
    for table, answer in ((ALLOWED, _PASS), (DENIED, _EPERM), (IGNORED, _SUCCEED)):
        for names in table.values():
            rules.update(dict.fromkeys(names.split(), (answer,)))
    if not counted:
        rules.update(dict.fromkeys(UNCOUNTED.split(), (_ENOSYS,)))
    for name, own in _by_arguments(ask=ask, counted=counted).items():
        rules[name] = (*own, *rules.get(name, (_ENOSYS,)))
    return rules


def _by_arguments(*, ask: bool, counted: bool) -> dict[str, list[Rule]]:
    """Return the rules of calls that are held by their arguments; where none matches, the tables have the answer."""
    eperm, einval, enomem = errno_action(errno.EPERM), errno_action(errno.EINVAL), errno_action(errno.ENOMEM)
    rules = {
        "clone": [Rule(eperm, (any_bit(0, sum(_CLONE_NEW_FLAGS.values())),))],
        "fcntl": [],
        "ioctl": [Rule(eperm, (low(1, request),)) for requests in REFUSED_IOCTLS.values() for request in requests.values()],
        "mmap": [Rule(enomem, (any_bit(3, _MAP_HUGETLB),))],
        "memfd_create": [Rule(enomem, (any_bit(1, _MFD_HUGETLB),))],
        "msgget": [],
        "personality": [Rule(ALLOW, (low(0, persona),)) for persona in PERSONALITIES.values()],
        "prctl": [
            Rule(eperm, (low(0, _PR_SET_PTRACER),)),
            Rule(eperm, (low(0, _PR_SCHED_CORE),)),
            Rule(einval, (low(0, _PR_SET_SECCOMP), low(1, _SECCOMP_MODE_FILTER))),
        ],
        "prlimit64": [
            Rule(eperm, (low(0, 1),)),
            Rule(ALLOW, (low(1, _RLIMIT_CORE), *null(2))),
            Rule(errno_action(0), (low(1, _RLIMIT_CORE), *null(3))),
            Rule(eperm, (low(1, _RLIMIT_CORE),)),  # it asks for the old limit as well, which a filter cannot write
        ],
        **{name: [Rule(eperm, (low(0, 1),))] for name in _SCHEDULING},
        "setpriority": [Rule(eperm, (low(1, 1),)), Rule(eperm, (low(0, _PRIO_USER),))],
        "ioprio_set": [Rule(eperm, (low(1, 1),)), Rule(eperm, (low(0, _IOPRIO_WHO_USER),))],
        "seccomp": [Rule(einval, (low(0, _SECCOMP_SET_MODE_FILTER),))],
        "semget": [],
        "setrlimit": [Rule(errno_action(0), (low(0, _RLIMIT_CORE),))],
        "setsockopt": [
            *(
                Rule(errno_action(number), (low(1, level), low(2, option)))
                for number, options in REFUSED_SOCKET_OPTIONS.values()
                for level, option in options.values()
            ),
            Rule(errno_action(0), (low(1, _SOL_SOCKET), low(2, _SO_RCVBUF))),
        ],
        "shmget": [Rule(enomem, (any_bit(2, _SHM_HUGETLB),))],
        "socket": _socket(NOTIFY if ask else errno_action(errno.EAFNOSUPPORT)),
        "socketpair": [
            *(Rule(ALLOW, (low(0, family),)) for family in SOCKET_FAMILIES.values()),
            Rule(errno_action(errno.EAFNOSUPPORT), (_family_with_a_name(),)),
        ],
    }
    if not counted:
        rules["mmap"].append(Rule(NOTIFY if ask else enomem, (low(3, _MAP_SHARED_ANONYMOUS, _MAP_TYPE_AND_ANONYMOUS),)))
        made = NOTIFY if ask else errno_action(errno.ENOSPC)
        for name, flags in (("shmget", 2), ("msgget", 1), ("semget", 2)):
            rules[name] += [Rule(made, (low(0, _IPC_PRIVATE),)), Rule(made, (any_bit(flags, _IPC_CREAT),))]
        rules["fcntl"].append(Rule(eperm, (low(1, _F_SETPIPE_SZ),)))
        rules["setsockopt"].append(Rule(errno_action(0), (low(1, _SOL_SOCKET), low(2, _SO_SNDBUF))))
        rules["prctl"].append(Rule(errno_action(0), (low(0, _PR_SET_DUMPABLE),)))
    return rules


def _socket(route: int) -> list[Rule]:
    """Return the rules of `socket`. route: the answer for netlink that passes."""
    no_family, no_type, no_protocol = (
        errno_action(number) for number in (errno.EAFNOSUPPORT, errno.ESOCKTNOSUPPORT, errno.EPROTONOSUPPORT)
    )
    netlink = low(0, AF_NETLINK)
    rules = [
        Rule(ALLOW, (low(0, SOCKET_FAMILIES["AF_UNIX"]),)),
        Rule(no_protocol, (netlink, any_bit(2, 0xFFFFFFFF ^ NETLINK_ROUTE))),
        *(Rule(route, (netlink, low(1, kind, _SOCK_TYPES))) for kind in NETLINK_TYPES.values()),
        Rule(no_type, (netlink,)),
    ]
    for families, kind, protocols in PROTOCOLS.values():
        for name in families:
            here = low(0, SOCKET_FAMILIES[name]), low(1, kind, _SOCK_TYPES)
            rules += [Rule(ALLOW, (*here, low(2, protocol))) for protocol in protocols]
    for family in _INTERNET:
        of_family = low(0, family)
        for kind in (_SOCK_STREAM, _SOCK_DGRAM):
            here = of_family, low(1, kind, _SOCK_TYPES)
            rules += [Rule(no_protocol, (*here, low(2, protocol))) for protocol in _REFUSED_PROTOCOLS]
            rules.append(Rule(_ENOSYS.action, here))
        # Raw ones are refused by the kernel, with the error that programs expect.
        rules += [Rule(ALLOW, (of_family, low(1, _SOCK_RAW, _SOCK_TYPES))), Rule(no_type, (of_family,))]
    return [*rules, Rule(no_family, (_family_with_a_name(),))]


def _family_with_a_name() -> Condition:
    return low(0, 0, 0xFFFFFFFF ^ (_FAMILIES_WITH_A_NAME - 1))
