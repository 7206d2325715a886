"""PID 1 of a sandbox: the child's numbered steps, then one command, then nothing.

It is a fork of the launcher. While it makes the sandbox it holds the launcher's privileges and reads nothing that a user
wrote; the last steps give everything up for good, and only then is a command taken. The command's files are therefore
written, and results collected, by a process that can do no more than the program itself.

PID 1 shares its uid with hostile code. It is out of reach: not dumpable (no ptrace, no /proc/1/mem, /proc/1/fd), signals
from inside its PID namespace do not touch it, and seccomp refuses the calls that read other processes.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
import socket
from collections.abc import Iterator
from typing import NamedTuple, NoReturn

from firebox.sandbox import kernel, mounts, spec
from firebox.sandbox.init import OOM_SCORE_DESCRIPTOR, OUT_OF_THE_WAY, Init, lower
from firebox.sandbox.supervisor import Supervisor

_HARD_LIMITS = {
    resource.RLIMIT_CORE: 1,  # 0 would not keep the kernel from starting the host's crash handler, 1 does: core(5), coredump.c
    resource.RLIMIT_MEMLOCK: 64 << 20,
    resource.RLIMIT_MSGQUEUE: 819_200,
    resource.RLIMIT_SIGPENDING: 4096,
    resource.RLIMIT_NICE: 0,
    resource.RLIMIT_RTPRIO: 0,
}

_STACK_BYTES = 512 << 20

_OOM_SCORE = 500
"""When the host runs out of memory it takes sandboxes first. As root it is also the least that a program can go back to."""


_USER_LIMITS = {"max_inotify_instances": b"16", "max_inotify_watches": b"8192"}
"""The host's user who started a rootless launcher has one count for everything: one sandbox must not take all of it.

Source: the kernel's admin-guide/sysctl/user.rst.
"""


class Making(NamedTuple):
    """What the launcher has prepared for one sandbox.

    uid: the sandbox's own, in the launcher's user namespace. own_user_namespace: False where the host refuses one to a
    process that already is unprivileged; the uid then is the boundary. drop_groups: False where the kernel forbids it
    (a rootless launcher without a subordinate group range). filters: of system calls, the one that has PID 1 decide
    some, and the one that refuses these instead. oom_score_is_free: the kernel would let programs lower their oom_score_adj
    again.
    """

    skeleton: mounts.Skeleton
    layers: tuple[str, ...]
    root: str
    specification: spec.SandboxSpec
    uid: int
    filters: tuple[bytes, bytes]
    overlay: bool
    own_user_namespace: bool
    drop_groups: bool
    sampled: bool
    oom_score_is_free: bool


def live(link: socket.socket, making: Making) -> NoReturn:
    """Make the sandbox, serve one command, end. `link`: to the launcher at first, then to the server."""
    link = _forget_launcher(link)
    steps: list[str | mounts.Step] = ["start"]
    try:
        for step in make(link, making):
            steps.append(step)  # noqa: PERF402 - one at a time: the last is the one that failed
        steps.append("7 system call filter")
        supervisor = _load_filter(making)
        steps.append("serve")
        Init(link, supervisor, sampled=making.sampled, ahead=making.specification.ahead).serve()
    except BaseException as error:  # noqa: BLE001 - the last frame of this process: everything must become a message
        number = error.errno if isinstance(error, OSError) else None
        hint = getattr(error, "hint", "")
        failed = steps[-1]
        words = failed if isinstance(failed, str) else f"3 {failed.describe()}"
        try:
            spec.send(link, {"failed": words, "errno": number or 0, "detail": f"{type(error).__name__}: {error}", "hint": hint})
        except OSError:
            os._exit(3)  # nobody is there to hear it
    os._exit(2)


def make(link: socket.socket, making: Making) -> Iterator[str | mounts.Step]:
    """Take the steps in order, yielding each before it is taken."""
    yield "1 wait until the launcher has put us into our control group"
    if link.recv(1) != b"g":
        os._exit(0)  # the launcher is gone or gave up

    yield "2 mounts, control group, host name and loopback of our own"
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)  # what the host mounts now must not appear here
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    kernel.unshare(kernel.CLONE_NEWCGROUP)
    socket.sethostname("firebox")
    kernel.raise_loopback()

    proc = _open_high(mounts.HOST + "/proc")  # later it cannot be reached any more, and ours may be read-only
    wanted = making.specification
    for each in mounts.plan(
        making.skeleton,
        making.layers,
        making.root,
        uid=making.uid,
        writable_bytes=wanted.writable_bytes,
        writable_inodes=wanted.writable_inodes,
        overlay=making.overlay,
        writable_proc=not making.oom_score_is_free,
        counted=not making.sampled,
    ):
        yield each
        each.execute()

    yield "4 become the sandbox's own user"
    _offer_to_oom_killer(proc)
    if making.drop_groups:
        os.setgroups([])
        os.setresgid(making.uid, making.uid, making.uid)
        os.setresuid(making.uid, making.uid, making.uid)
    if making.own_user_namespace:
        kernel.prctl(kernel.PR_SET_DUMPABLE, 1)  # else /proc/self belongs to root and the maps cannot be written
        kernel.unshare(kernel.CLONE_NEWUSER)
        for name, line in (
            ("setgroups", "deny"),
            ("uid_map", f"{spec.INSIDE_UID} {making.uid} 1"),
            ("gid_map", f"{spec.INSIDE_UID} {making.uid} 1"),
        ):
            _write_at(proc, f"self/{name}", line.encode())
        _lower_user_limits(proc)
    os.close(proc)

    yield "5 drop every capability, for good"
    if making.own_user_namespace:
        kernel.drop_capabilities()
    else:
        kernel.clear_capabilities()
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)

    yield "6 limits"
    for limit, value in _HARD_LIMITS.items():
        lower(limit, value)
    hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
    # What is started ahead is laid out for this one; it becomes that of the command when that comes.
    ahead_stack = wanted.ahead.stack_bytes if wanted.ahead is not None else 0
    wanted_stack = ahead_stack or wanted.memory_bytes or _STACK_BYTES
    resource.setrlimit(resource.RLIMIT_STACK, (wanted_stack if hard == resource.RLIM_INFINITY else min(wanted_stack, hard), hard))
    os.umask(0o022)
    os.chdir(mounts.WORK)


def _load_filter(making: Making) -> Supervisor | None:
    """Load the filter of system calls. Returns None where this kernel, or a filter around us with a listener, allows none."""
    ask, refuse = making.filters
    supervisor: Supervisor | None = None
    try:
        listener = kernel.load_seccomp(ask, kernel.SECCOMP_FILTER_FLAG_NEW_LISTENER)
    except kernel.KernelError as error:
        if error.errno not in (errno.EBUSY, errno.EINVAL):
            raise
        kernel.load_seccomp(refuse)
    else:
        supervisor = Supervisor(fcntl.fcntl(listener, fcntl.F_DUPFD_CLOEXEC, OUT_OF_THE_WAY))
        os.close(listener)
    return supervisor


def _open_high(folder: str) -> int:
    """Open a folder out of the way of the low numbers."""
    opened = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, 16)
    finally:
        os.close(opened)


def _write_at(proc: int, name: str, data: bytes) -> None:
    opened = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=proc)
    try:
        os.write(opened, data)
    finally:
        os.close(opened)


def _lower_user_limits(proc: int) -> None:
    """Bound what the present user namespace may take of the counts that the kernel keeps for each user.

    /proc/sys/user shows each user namespace its own values. Where it is read-only, as in most containers, the host's values
    hold.
    """
    for name, value in _USER_LIMITS.items():
        try:
            _write_at(proc, f"sys/user/{name}", value)
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT):
                raise
            return


def _offer_to_oom_killer(proc: int) -> None:
    """Raise our score, and keep the file open: from step 5 on it belongs to root, and the program shall have a higher one."""
    opened = os.open("self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC, dir_fd=proc)
    if opened != OOM_SCORE_DESCRIPTOR:
        os.dup2(opened, OOM_SCORE_DESCRIPTOR, inheritable=False)
        os.close(opened)
    if int(os.pread(OOM_SCORE_DESCRIPTOR, 16, 0)) < _OOM_SCORE:  # to go down needs a capability
        os.pwrite(OOM_SCORE_DESCRIPTOR, str(_OOM_SCORE).encode(), 0)


def _forget_launcher(link: socket.socket) -> socket.socket:
    """Close every descriptor of the launcher but this link, which becomes number 3."""
    for standard in (1, 2):
        os.dup2(0, standard)  # the launcher's stdin is /dev/null
    os.dup2(link.detach(), 3, inheritable=False)
    os.closerange(4, 1 << 20)
    return socket.socket(fileno=3)
