"""The system calls that a program may make, each group with its reason, and the seccomp filter that enforces them.

A filter is one program that decides every call:

* calls in `ALLOWED` pass, calls in `DENIED` fail with EPERM, and all others (newer than this table) fail with ENOSYS, so that
  libraries fall back to older calls;
* calls that are refused only with certain arguments have rules. Rules compare exactly the bits that the kernel uses, so that
  garbage in the upper half of a register makes no difference;
* PID 1 decides some calls, because their resources must be counted (native/supervisor.c). Where it cannot, they are refused.

A call through a foreign ABI (32-bit `int 0x80`, x32) kills the process.
"""

from __future__ import annotations

import errno
import os
from functools import cache

from firebox.sandbox.plan import bpf
from firebox.sandbox.plan.bpf import ALLOW, NOTIFY, Condition, Rule, Rules, any_bit, errno_action, low, null
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
    "processes and threads; clone is refused with flags for new namespaces, clone3 is absent because it hides its flags": """
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
    "sockets in the sandbox's own network namespace; rules restrict the families, see below": """
        socketpair bind listen accept accept4 connect getsockname getpeername getsockopt setsockopt shutdown sendto
        recvfrom sendmsg recvmsg sendmmsg recvmmsg""",
    "System V and POSIX queues, semaphores and shared memory in the sandbox's own IPC namespace": """
        shmget shmat shmdt shmctl semget semop semtimedop semctl msgget msgsnd msgrcv msgctl mq_open mq_unlink
        mq_timedsend mq_timedreceive mq_notify mq_getsetattr""",
}

DENIED: dict[str, str] = {
    "mounts and roots: the file tree is fixed": """
        mount umount2 pivot_root chroot open_tree move_mount fsopen fsconfig fsmount fspick mount_setattr""",
    "namespaces": "unshare setns",
    "other processes' memory and descriptors": "ptrace process_vm_readv process_vm_writev process_madvise pidfd_getfd kcmp",
    "kernel features with a history of vulnerabilities": """
        bpf perf_event_open userfaultfd add_key request_key keyctl fanotify_init fanotify_mark modify_ldt lookup_dcookie""",
    "file handles, which bypass path checks": "open_by_handle_at name_to_handle_at",
    "the machine itself": """
        reboot kexec_load kexec_file_load init_module finit_module delete_module swapon swapoff syslog acct quotactl
        quotactl_fd settimeofday clock_settime clock_adjtime adjtimex sethostname setdomainname iopl ioperm vhangup
        nfsservctl""",
    "moving pages of other processes": "move_pages migrate_pages",
}

ABSENT = {
    "io_uring_setup io_uring_enter io_uring_register": "executes other calls inside the kernel, where no filter sees them",
    "io_setup": "contexts have one limit for the whole machine, so one run could use them up",
    "clone3": "its flags are in memory, where no filter sees them; libraries fall back to clone",
    "memfd_secret": "its pages are removed from the kernel's direct map, which stays fragmented and slows down the whole machine",
}
"""Left out on purpose: they fail with ENOSYS, like every call that no table names."""

IGNORED: dict[str, str] = {
    "programs write to memory only; in a loop these calls would keep the host's disks busy": "sync syncfs",
}
"""They succeed and do nothing."""

UNCOUNTED = "memfd_create splice tee vmsplice"
"""Absent without a memory cgroup: their pages belong to no process whose memory could be sampled."""

NOT_KEPT = "pkey_alloc membarrier set_mempolicy mbind set_mempolicy_home_node"
"""Absent during a capture: their kernel state would be missing after a restore. V8 uses protection keys where it can."""

SOCKET_FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10}
AF_NETLINK, NETLINK_ROUTE = 16, 0
NETLINK_TYPES = {"SOCK_DGRAM": 2, "SOCK_RAW": 3}
PROTOCOLS = {
    "TCP": (("AF_INET", "AF_INET6"), 1, (0, 6)),
    "UDP": (("AF_INET", "AF_INET6"), 2, (0, 17)),
    "ICMP": (("AF_INET",), 2, (1,)),
    "ICMPv6": (("AF_INET6",), 2, (58,)),
}
"""Allowed families, types and protocol numbers. Others make the kernel load a module, or run modprobe outside of all limits;
SCTP, DCCP and L2TP have a history of vulnerabilities."""

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
    "injects input into a terminal": {"TIOCSTI": 0x5412, "TIOCLINUX": 0x541C},
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
    "compiles a filter into memory that has one limit for the machine and is charged to no cgroup": (
        errno.EPERM,
        {
            "SO_ATTACH_FILTER": (1, 26),
            "SO_ATTACH_BPF": (1, 50),
            "SO_ATTACH_REUSEPORT_CBPF": (1, 51),
            "SO_ATTACH_REUSEPORT_EBPF": (1, 52),
        },
    ),
    "there are 4,096 flow labels for the whole machine": (errno.ENOPROTOOPT, {"IPV6_FLOWLABEL_MGR": (41, 32)}),
    "keys for routers; their memory is charged to no cgroup": (
        errno.ENOPROTOOPT,
        {"TCP_MD5SIG": (6, 14), "TCP_MD5SIG_EXT": (6, 32), "TCP_AO_ADD_KEY": (6, 38)},
    ),
    "kernel TLS has a history of vulnerabilities": (errno.ENOENT, {"TCP_ULP": (6, 31)}),
}
"""reason -> (errno, name -> (level, option))."""

OTHER_RULES = {
    "seccomp(SECCOMP_SET_MODE_FILTER), prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER)": "EINVAL, as from a kernel without it: "
    "filters are compiled into memory that has one limit for the machine (net.core.bpf_jit_limit), is charged to no cgroup and "
    "lives as long as its process. Many processes with thousands of tiny filters each fill it, and then no sandbox can load its "
    "own. Neither a cgroup nor a resource limit bounds their number. Strict mode remains available",
    "setsockopt(SO_RCVBUF)": "succeeds and is ignored, as with a small net.core.rmem_max: queued data of a netlink socket is "
    "charged to no cgroup; TCP adjusts its own buffers",
    "mmap(MAP_HUGETLB), memfd_create(MFD_HUGETLB), shmget(SHM_HUGETLB)": "ENOMEM, as with an empty pool: huge pages are "
    "one pool for the whole machine, outside of the memory limit",
    "prctl(PR_SET_PTRACER)": "EPERM: no process may trace another",
    "prctl(PR_SCHED_CORE)": "EPERM: it would keep the sibling thread of a processor core idle",
    "prlimit64(1, ...)": "EPERM: PID 1 has the same uid, so a program could take away its file descriptors or have it killed",
    "sched_set*(1, ...), setpriority and ioprio_set of PID 1 or of a user": "EPERM: "
    "without a cgroup PID 1 samples memory and CPU time, and it must not wait for a processor that a program keeps busy",
    "setrlimit(RLIMIT_CORE)": "succeeds and is ignored: the limit of one byte keeps the host's crash handler from running, "
    "a limit of 0 would not (core(5))",
}
"""The rules of `_by_arguments` that are in no table, described for the documentation."""

FREQUENT = """
    mmap ioctl newfstatat openat close read futex rt_sigaction mprotect rt_sigprocmask fcntl lseek write munmap readlink brk
    pread64 fstat stat access getpid epoll_wait epoll_pwait poll ppoll gettid clock_gettime getrandom madvise sysinfo prctl
    recvmsg sendmsg sendto recvfrom wait4 clone execve"""
"""The most frequent calls of Python, Node.js, Java, C programs, a compiler and shells (strace -c), the most expensive first.
`mmap` and `ioctl` have rules, so the kernel runs the filter for them; calls that always pass are in its bitmap."""

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
"""Larger numbers are no families; the kernel itself rejects them."""

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""AUDIT_ARCH_X86_64, AUDIT_ARCH_AARCH64."""
_X32 = 0x40000000
_PASS, _EPERM, _ENOSYS, _SUCCEED = (
    Rule(action) for action in (ALLOW, errno_action(errno.EPERM), errno_action(errno.ENOSYS), errno_action(0))
)


@cache
def compile_filter(*, ask: bool, counted: bool, traces: bool = False, machine: str | None = None) -> bytes:
    """Compile the whole filter of a sandbox. It refuses to load another one.

    ask: PID 1 decides the supervised calls, which needs a listener; False refuses them. counted: a cgroup counts memory. traces:
    processes may trace each other, for captures only. machine: as in uname(2), this one by default. Raises: OSError for an
    architecture without a table.
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
    # The number -1, which tracers use for "no call", is not an x32 call.
    beyond = {_X32: (Rule(bpf.KILL_PROCESS),), 0xFFFFFFFF: (_ENOSYS,)} if machine == "x86_64" else {}
    frequent = FREQUENT.split()
    weights = {numbers[name]: 1000 // place for place, name in enumerate(frequent, 1) if name in numbers}
    return bpf.compiled(_ARCHITECTURES[machine], calls, (_ENOSYS,), beyond, weights)


def every_call() -> set[str]:
    """Return the names of all calls in the tables."""
    listed = " ".join(names for table in (ALLOWED, DENIED, IGNORED) for names in table.values())
    return {*listed.split(), *" ".join(ABSENT).split(), *FREQUENT.split(), *_by_arguments(ask=True, counted=False)}


def _by_name(*, ask: bool, counted: bool) -> dict[str, Rules]:
    """Return the rules of every call that does not always fail with ENOSYS."""
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
    """Return the rules about arguments; where none matches, the tables decide."""
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
            Rule(eperm, (low(1, _RLIMIT_CORE),)),  # it also reads the old limit, which a filter cannot emulate
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
    """Return the rules of `socket`. route: the action for permitted netlink sockets."""
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
        # The kernel itself refuses raw sockets, with the error that programs expect.
        rules += [Rule(ALLOW, (of_family, low(1, _SOCK_RAW, _SOCK_TYPES))), Rule(no_type, (of_family,))]
    return [*rules, Rule(no_family, (_family_with_a_name(),))]


def _family_with_a_name() -> Condition:
    return low(0, 0, 0xFFFFFFFF ^ (_FAMILIES_WITH_A_NAME - 1))
