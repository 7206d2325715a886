"""Which system calls a program may make, each group with its reason, and the compiled filters.

Three filters are loaded, and the kernel takes the strictest answer:

* the *allow-list*: what is in `ALLOWED` passes, what is in `DENIED` fails with EPERM, everything else (newer than this
  table) fails with ENOSYS, so that libraries fall back to what they used before;
* the *argument filter*: calls that are allowed in general and not with certain arguments. Comparisons are masked to the
  bits the kernel looks at, so that garbage in the upper half of a register does not slip by;
* the *supervised calls*: what PID 1 decides, because it must be counted (see `supervisor`). Where that is not possible a
  filter that refuses them takes its place.

A call made through a foreign ABI (32-bit `int 0x80`, x32) kills the process.
Compiled once in each launcher with libseccomp; sandboxes only load the bytes.
"""

from __future__ import annotations

import errno
import itertools
from typing import NamedTuple

from firebox.sandbox.libseccomp import (
    ALLOW,
    ATTR_ACT_BADARCH,
    ATTR_CTL_OPTIMIZE,
    CMP_EQ,
    CMP_MASKED_EQ,
    CMP_NE,
    KILL_PROCESS,
    NOTIFY,
    Comparison,
    SystemCallFilter,
    errno_action,
)

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
    "processes and threads; new namespaces are refused by the argument filter, clone3 hides its flags and is not here": """
        clone fork vfork execve execveat exit exit_group wait4 waitid getpid getppid gettid getpgid getpgrp setpgid getsid setsid
        set_tid_address set_robust_list get_robust_list futex futex_waitv futex_wake futex_wait futex_requeue rseq arch_prctl
        prctl sched_yield sched_getaffinity sched_setaffinity sched_getparam sched_setparam sched_getscheduler
        sched_setscheduler sched_getattr sched_setattr sched_get_priority_max sched_get_priority_min sched_rr_get_interval
        getpriority setpriority ioprio_get ioprio_set getrlimit setrlimit prlimit64 getrusage times getcpu pidfd_open
        set_thread_area get_thread_area restart_syscall riscv_flush_icache seccomp landlock_create_ruleset landlock_add_rule
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
    "sockets inside the sandbox's own network; families are held by the rule in `compile_filters`": """
        socketpair bind listen accept accept4 connect getsockname getpeername getsockopt setsockopt shutdown sendto
        recvfrom sendmsg recvmsg sendmmsg recvmmsg""",
    "System V and POSIX queues, semaphores and memory of the sandbox's own IPC namespace": """
        shmget shmat shmdt shmctl semget semop semtimedop semctl msgget msgsnd msgrcv msgctl mq_open mq_unlink
        mq_timedsend mq_timedreceive mq_notify mq_getsetattr""",
}

DENIED: dict[str, str] = {
    "mounts and roots: the tree is fixed": """
        mount umount umount2 pivot_root chroot open_tree move_mount fsopen fsconfig fsmount fspick mount_setattr""",
    "namespaces": "unshare setns",
    "other processes' memory and descriptors": "ptrace process_vm_readv process_vm_writev process_madvise pidfd_getfd kcmp",
    "kernel surface with a history": """
        bpf perf_event_open userfaultfd add_key request_key keyctl fanotify_init fanotify_mark modify_ldt lookup_dcookie
        vm86 vm86old""",
    "handles that step around path checks": "open_by_handle_at name_to_handle_at",
    "the machine itself": """
        reboot kexec_load kexec_file_load init_module finit_module delete_module swapon swapoff syslog acct quotactl
        quotactl_fd settimeofday clock_settime clock_adjtime adjtimex sethostname setdomainname iopl ioperm vhangup
        nfsservctl""",
    "moving pages of others": "move_pages migrate_pages",
}

ABSENT = {
    "io_uring": "does the work of other calls in the kernel, where no filter sees it",
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
"""Absent where no control group counts memory: pages that they hold belong to no process that could be asked."""

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

_LOW_32 = 0xFFFFFFFF
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
    "could load its own. Neither a control group nor a resource limit bounds their number, and the strict mode remains",
    "setsockopt(SO_RCVBUF)": "answered with success and ignored, as where net.core.rmem_max is small: what waits in a netlink "
    "socket counts for nobody; TCP adjusts its own",
    "mmap(MAP_HUGETLB), memfd_create(MFD_HUGETLB), shmget(SHM_HUGETLB)": "ENOMEM, as from an empty pool: the host's huge "
    "pages are one pool for the machine, outside of the memory limit",
    "prctl(PR_SET_PTRACER)": "EPERM: nobody traces anybody here",
    "prctl(PR_SCHED_CORE)": "EPERM: it would keep the other half of a processor core idle",
    "prlimit64(1, ...)": "EPERM: PID 1 has the same uid, so a program could take its descriptors or its life",
    "setrlimit(RLIMIT_CORE)": "answered with success and ignored: the limit of one byte is what keeps the host's crash "
    "handler away, lowering it to 0 would call it (core(5))",
}
"""What `compile_filters` holds besides the tables, in words, for the documentation."""

_INTERNET = (SOCKET_FAMILIES["AF_INET"], SOCKET_FAMILIES["AF_INET6"])
_PR_SET_PTRACER = 0x59616D61
_PR_SCHED_CORE = 62
_RLIMIT_CORE = 4
_SOCK_TYPES, _SOCK_RAW = 0xF, 3
_REFUSED_PROTOCOLS = (1, 6, 17, 33, 58, 115, 132, 136, 262)
_SECCOMP_SET_MODE_FILTER = 1
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_MAP_HUGETLB, _MFD_HUGETLB, _SHM_HUGETLB = 0x40000, 0x4, 0o4000
_MAP_SHARED_ANONYMOUS, _MAP_TYPE_AND_ANONYMOUS = 0x21, 0x2F
_PR_SET_DUMPABLE = 4
_IPC_PRIVATE, _IPC_CREAT = 0, 0o1000
_F_SETPIPE_SZ = 1031
_SOL_SOCKET, _SO_SNDBUF, _SO_RCVBUF = 1, 7, 8


class Filters(NamedTuple):
    """Compiled BPF programs. programs: those of every sandbox, in the order in which they are loaded.

    They are loaded last: they refuse to load another. supervised, supervised_uncounted: (the filter that asks PID 1, the one
    that refuses in its place), with control groups and without.
    """

    programs: tuple[bytes, ...]
    supervised: tuple[bytes, bytes]
    supervised_uncounted: tuple[bytes, bytes]


def compile_filters() -> Filters:
    """Compile both filters for this machine.

    Raises: OSError when libseccomp is not installed.
    Source: seccomp_rule_add(3), seccomp(2).
    """
    allow_list = SystemCallFilter(errno_action(errno.ENOSYS))
    allow_list.set(ATTR_ACT_BADARCH, KILL_PROCESS)
    _optimize(allow_list)
    for names in ALLOWED.values():
        for name in names.split():
            _add(allow_list, ALLOW, name)
    for names in DENIED.values():
        for name in names.split():
            _add(allow_list, errno_action(errno.EPERM), name)
    for names in IGNORED.values():
        for name in names.split():
            _add(allow_list, errno_action(0), name)
    allow_list.add(ALLOW, "socket", _low(0, SOCKET_FAMILIES["AF_UNIX"]))
    passing = {
        (SOCKET_FAMILIES[family], kind, protocol)
        for families, kind, protocols in PROTOCOLS.values()
        for family in families
        for protocol in protocols
    }
    for family, kind, protocol in sorted(passing):
        allow_list.add(ALLOW, "socket", _low(0, family), _low(1, kind, _SOCK_TYPES), _low(2, protocol))
    for family in _INTERNET:  # refused by the kernel, with the error that programs expect
        allow_list.add(ALLOW, "socket", _low(0, family), _low(1, _SOCK_RAW, _SOCK_TYPES))
    for kind in NETLINK_TYPES.values():
        route = _low(0, AF_NETLINK), _low(1, kind, _SOCK_TYPES), _low(2, NETLINK_ROUTE)
        allow_list.add(ALLOW, "socket", *route)
    for persona in PERSONALITIES.values():
        allow_list.add(ALLOW, "personality", _low(0, persona))

    arguments = SystemCallFilter(ALLOW)
    arguments.set(ATTR_ACT_BADARCH, KILL_PROCESS)
    eperm = errno_action(errno.EPERM)
    for flag in _CLONE_NEW_FLAGS.values():
        arguments.add(eperm, "clone", _low(0, flag, flag))
    for requests in REFUSED_IOCTLS.values():
        for request in requests.values():
            arguments.add(eperm, "ioctl", _low(1, request))
    arguments.add(eperm, "prctl", _low(0, _PR_SET_PTRACER))
    arguments.add(eperm, "prctl", _low(0, _PR_SCHED_CORE))
    arguments.add(eperm, "prlimit64", _low(0, 1))
    succeed, null = errno_action(0), Comparison(3, CMP_EQ, 0)
    arguments.add(succeed, "prlimit64", _low(1, _RLIMIT_CORE), Comparison(2, CMP_NE, 0), null)
    not_null = Comparison(3, CMP_NE, 0)
    arguments.add(eperm, "prlimit64", _low(1, _RLIMIT_CORE), Comparison(2, CMP_NE, 0), not_null)
    arguments.add(succeed, "setrlimit", _low(0, _RLIMIT_CORE))
    for number, options in REFUSED_SOCKET_OPTIONS.values():
        for level, option in options.values():
            arguments.add(errno_action(number), "setsockopt", _low(1, level), _low(2, option))
    arguments.add(succeed, "setsockopt", _low(1, _SOL_SOCKET), _low(2, _SO_RCVBUF))
    arguments.add(errno_action(errno.EINVAL), "seccomp", _low(0, _SECCOMP_SET_MODE_FILTER))
    arguments.add(errno_action(errno.EINVAL), "prctl", _low(0, _PR_SET_SECCOMP), _low(1, _SECCOMP_MODE_FILTER))
    for name, position, flag in (
        ("mmap", 3, _MAP_HUGETLB),
        ("memfd_create", 1, _MFD_HUGETLB),
        ("shmget", 2, _SHM_HUGETLB),
    ):
        arguments.add(errno_action(errno.ENOMEM), name, _low(position, flag, flag))
    for family in set(range(64)) - set(SOCKET_FAMILIES.values()):
        refused = errno_action(errno.EAFNOSUPPORT)
        arguments.add(refused, "socketpair", _low(0, family))
        if family != AF_NETLINK:
            arguments.add(refused, "socket", _low(0, family))
    for bit in range(32):
        other = _low(2, 1 << bit, 1 << bit)
        arguments.add(errno_action(errno.EPROTONOSUPPORT), "socket", _low(0, AF_NETLINK), other)
    for kind in set(range(_SOCK_TYPES + 1)) - set(NETLINK_TYPES.values()):
        route = _low(0, AF_NETLINK), _low(1, kind, _SOCK_TYPES), _low(2, NETLINK_ROUTE)
        arguments.add(errno_action(errno.ESOCKTNOSUPPORT), "socket", *route)
    for family in _INTERNET:
        for kind in set(range(_SOCK_TYPES + 1)) - {1, 2, _SOCK_RAW}:
            arguments.add(errno_action(errno.ESOCKTNOSUPPORT), "socket", _low(0, family), _low(1, kind, _SOCK_TYPES))
        for kind, protocol in itertools.product((1, 2), _REFUSED_PROTOCOLS):
            if (family, kind, protocol) not in passing:
                refused = errno_action(errno.EPROTONOSUPPORT)
                arguments.add(refused, "socket", _low(0, family), _low(1, kind, _SOCK_TYPES), _low(2, protocol))
    return Filters(
        (allow_list.compiled(), arguments.compiled()),
        (_supervised(ask=True, counted=True), _supervised(ask=False, counted=True)),
        (_supervised(ask=True, counted=False), _supervised(ask=False, counted=False)),
    )


def _supervised(*, ask: bool, counted: bool) -> bytes:
    """Compile the filter of the calls that PID 1 decides. ask: False refuses them. counted: by control groups."""
    supervised = SystemCallFilter(ALLOW)
    supervised.set(ATTR_ACT_BADARCH, KILL_PROCESS)
    netlink = NOTIFY if ask else errno_action(errno.EAFNOSUPPORT)
    supervised.add(netlink, "socket", _low(0, AF_NETLINK))
    if not counted:
        shared = NOTIFY if ask else errno_action(errno.ENOMEM)
        supervised.add(shared, "mmap", _low(3, _MAP_SHARED_ANONYMOUS, _MAP_TYPE_AND_ANONYMOUS))
        made = NOTIFY if ask else errno_action(errno.ENOSPC)
        for name, flags in (("shmget", 2), ("msgget", 1), ("semget", 2)):
            supervised.add(made, name, _low(0, _IPC_PRIVATE))
            supervised.add(made, name, _low(flags, _IPC_CREAT, _IPC_CREAT))
        for name in UNCOUNTED.split():
            supervised.add(errno_action(errno.ENOSYS), name)
        supervised.add(errno_action(errno.EPERM), "fcntl", _low(1, _F_SETPIPE_SZ))
        supervised.add(errno_action(0), "setsockopt", _low(1, _SOL_SOCKET), _low(2, _SO_SNDBUF))
        supervised.add(errno_action(0), "prctl", _low(0, _PR_SET_DUMPABLE))
    return supervised.compiled()


def _low(position: int, value: int, mask: int = _LOW_32) -> Comparison:
    """Return a comparison of an argument's bits of `mask`, by default those of an int."""
    return Comparison(position, CMP_MASKED_EQ, mask, value)


def _add(syscall_filter: SystemCallFilter, action: int, name: str) -> None:
    """Add a rule; a name that this libseccomp or this processor does not know needs none: the default refuses it."""
    try:
        syscall_filter.add(action, name)
    except OSError:
        return


def _optimize(syscall_filter: SystemCallFilter) -> None:
    """Ask for a binary tree instead of a list of comparisons; older libseccomp has no such attribute."""
    try:
        syscall_filter.set(ATTR_CTL_OPTIMIZE, 2)
    except OSError:
        return
