"""PID 1 of a sandbox: the child's numbered steps, then one command, then nothing.

It is a fork of the launcher. While it makes the sandbox it holds the launcher's privileges and reads nothing that a user
wrote; the last steps give everything up for good, and only then is a command taken. The command's files are therefore
written, and results collected, by a process that can do no more than the program itself.

PID 1 shares its uid with hostile code. It is out of reach: not dumpable (no ptrace, no /proc/1/mem, /proc/1/fd), signals
from inside its PID namespace do not touch it, and seccomp refuses the calls that read other processes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import select
import signal
import socket
import stat
import struct
import termios
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, NoReturn

from firebox.sandbox import kernel, mounts, spec

_HARD_LIMITS = {
    resource.RLIMIT_CORE: 0,
    resource.RLIMIT_MEMLOCK: 64 << 20,
    resource.RLIMIT_MSGQUEUE: 819_200,
    resource.RLIMIT_SIGPENDING: 4096,
    resource.RLIMIT_NICE: 0,
    resource.RLIMIT_RTPRIO: 0,
}
_SAMPLE_MS = 10
_OOM_SCORE_OF_PROGRAM = b"1000"
_COLLECT_FOLDERS_DEEP = 64
_COLLECT_ENTRIES = 200_000
_SIGNALS_PYTHON_CHANGED = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD, signal.SIGINT)


@dataclass(frozen=True, slots=True)
class Making:
    """What the launcher has prepared for one sandbox.

    uid: the sandbox's own, in the launcher's user namespace. own_user_namespace: False where the host refuses one to a
    process that already is unprivileged; the uid then is the boundary. drop_groups: False where the kernel forbids it
    (a rootless launcher without a subordinate group range).
    """

    skeleton: mounts.Skeleton
    root: str
    specification: spec.SandboxSpec
    uid: int
    seccomp_programs: tuple[bytes, ...]
    overlay: bool
    own_user_namespace: bool
    drop_groups: bool
    sampled: bool


def live(link: socket.socket, making: Making) -> NoReturn:
    """Make the sandbox, serve one command, end. `link`: to the launcher at first, then to the server."""
    link = _forget_launcher(link)
    step = "start"
    try:
        for step in make(link, making):  # noqa: B007 - the name of the step that fails is what matters
            pass
        step = "serve"
        Init(link, sampled=making.sampled).serve()
    except BaseException as error:  # noqa: BLE001 - the last frame of this process: everything must become a message
        number = error.errno if isinstance(error, OSError) else None
        hint = getattr(error, "hint", "")
        try:
            spec.send(link, {"failed": step, "errno": number or 0, "detail": f"{type(error).__name__}: {error}", "hint": hint})
        except OSError:
            os._exit(3)  # nobody is there to hear it
    os._exit(2)


def make(link: socket.socket, making: Making) -> Iterator[str]:
    """Take the steps in order, yielding the name of each before it is taken."""
    yield "1 wait until the launcher has put us into our control group"
    if link.recv(1) != b"g":
        os._exit(0)  # the launcher is gone or gave up

    yield "2 control group, host name and loopback of our own"
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    kernel.unshare(kernel.CLONE_NEWCGROUP)
    socket.sethostname("firebox")
    kernel.raise_loopback()

    wanted = making.specification
    for layer, each in mounts.plan(
        making.skeleton,
        making.root,
        uid=making.uid,
        writable_bytes=wanted.writable_bytes,
        writable_inodes=wanted.writable_inodes,
        overlay=making.overlay,
    ):
        yield f"3 {layer}: {each.describe()}"
        each.execute()

    yield "4 become the sandbox's own user"
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
            _write(f"/proc/self/{name}", line.encode())

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
        _lower(limit, value)
    os.umask(0o022)

    yield "7 system call filter"
    for program in making.seccomp_programs:
        kernel.load_seccomp(program)
    os.chdir(mounts.WORK)


def _forget_launcher(link: socket.socket) -> socket.socket:
    """Close every descriptor of the launcher but this link, which becomes number 3."""
    for standard in (1, 2):
        os.dup2(0, standard)  # the launcher's stdin is /dev/null
    os.dup2(link.detach(), 3, inheritable=False)
    os.closerange(4, 1 << 20)
    return socket.socket(fileno=3)


class Init:
    """The served part: says ready, waits for the command, runs it, reaps, reports, collects."""

    def __init__(self, link: socket.socket, *, sampled: bool) -> None:
        self._link = link
        self._sampled = sampled
        self._limits: Mapping[str, Any] = {}
        self._memory_peak_bytes = 0
        self._cpu_ms = 0.0
        self._exceeded = ""

    def serve(self) -> NoReturn:
        stdin_read, stdin_write = os.pipe()
        stdout_read, stdout_write = os.pipe()
        stderr_read, stderr_write = os.pipe()
        # Opened by the sandbox's own user, so that programs may open /dev/stdout and /dev/stdin by name.
        spec.send(self._link, {"ready": True}, (stdin_write, stdout_read, stderr_read))
        for descriptor in (stdin_write, stdout_read, stderr_read):
            os.close(descriptor)

        data, descriptors = spec.receive(self._link)
        if not data:
            os._exit(0)
        command = spec.decode(data)
        self._limits = command
        terminal: list[int] = []
        slave = ""
        step = "files"
        try:
            _write_files(command, descriptors)
            if command["terminal"]:
                step = "terminal"
                terminal, slave = _open_terminal(*command["terminal"])
            step = "limits"
            _lower(resource.RLIMIT_NOFILE, command["open_files"])
            _lower(resource.RLIMIT_FSIZE, command["file_size_bytes"])
            _lower(resource.RLIMIT_NPROC, command["processes"] + 1)
            if command["cpu_ms"]:
                _lower(resource.RLIMIT_CPU, command["cpu_ms"] // 1000 + 2)
            step = "start"
            wake_read, wake_write = os.pipe()
            os.set_blocking(wake_write, False)
            os.set_blocking(wake_read, False)
            signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
            signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
            pid = _spawn(command, (stdin_read, stdout_write, stderr_write), slave)
        except (OSError, ValueError) as error:
            number = error.errno if isinstance(error, OSError) else None
            detail = f"{os.strerror(number)}: {error.filename}" if number and isinstance(error, OSError) else str(error)
            spec.send(self._link, {"refused": step, "errno": number or 0, "detail": detail})
            os._exit(0)
        for descriptor in (stdin_read, stdout_write, stderr_write):
            os.close(descriptor)
        spec.send(self._link, {"started": True}, terminal)
        for descriptor in terminal:
            os.close(descriptor)
        try:
            _write(f"/proc/{pid}/oom_score_adj", _OOM_SCORE_OF_PROGRAM)  # the kernel should take it before us
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ESRCH, errno.EACCES):
                raise
        status = self._watch(pid, wake_read)
        _kill_everything()
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        message: dict[str, Any] = {
            "exited": os.waitstatus_to_exitcode(status),
            "cpu_ms": (used.ru_utime + used.ru_stime) * 1000,
            "exceeded": self._exceeded,
        }
        if self._sampled:
            message["memory_peak_bytes"] = max(self._memory_peak_bytes, used.ru_maxrss * 1024)
        spec.send(self._link, message)
        self._collect_when_asked()
        os._exit(0)

    def _watch(self, pid: int, wake_read: int) -> int:
        """Pass signals on and reap until the program itself has ended. Returns its wait status."""
        poll = select.poll()
        poll.register(wake_read, select.POLLIN)
        poll.register(self._link, select.POLLIN)
        while True:
            for descriptor, _event in poll.poll(_SAMPLE_MS if self._sampled else None):
                if descriptor == self._link.fileno():
                    self._obey(pid)
            with contextlib.suppress(BlockingIOError):
                os.read(wake_read, 4096)
            while True:
                try:
                    reaped, status = os.waitpid(-1, os.WNOHANG)
                except ChildProcessError:
                    break
                if reaped == pid:
                    return status
                if not reaped:
                    break
            if self._sampled and not self._exceeded:
                self._sample()

    def _obey(self, pid: int) -> None:
        data, _descriptors = spec.receive(self._link)
        if not data:
            os._exit(0)  # the server is gone; the kernel ends everything with us
        message = spec.decode(data)
        if "signal" in message:
            try:
                os.killpg(pid, message["signal"])
            except (ProcessLookupError, PermissionError):
                return

    def _sample(self) -> None:
        """Add up memory and processor time of every process here; kill all of it above a limit.

        Stands in for control groups. Between two samples a program can go over; the host's own limits hold then.
        """
        memory_bytes, cpu_ticks = 0, 0
        page_bytes, ticks_a_second = resource.getpagesize(), os.sysconf("SC_CLK_TCK")
        for name in os.listdir("/proc"):
            if not name.isdigit() or name == "1":
                continue
            try:
                with open(f"/proc/{name}/statm", "rb") as file:
                    resident, shared = file.read().split()[1:3]
                with open(f"/proc/{name}/stat", "rb") as file:
                    fields = file.read().rsplit(b")", 1)[1].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            memory_bytes += (int(resident) - int(shared)) * page_bytes
            cpu_ticks += sum(map(int, fields[11:15]))
        written = os.statvfs(mounts.WORK)
        memory_bytes += (written.f_blocks - written.f_bfree) * written.f_frsize
        self._memory_peak_bytes = max(self._memory_peak_bytes, memory_bytes)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        self._cpu_ms = cpu_ticks * 1000 / ticks_a_second + (used.ru_utime + used.ru_stime) * 1000
        if self._limits["memory_bytes"] and memory_bytes > self._limits["memory_bytes"]:
            self._exceeded = "memory"
        elif self._limits["cpu_ms"] and self._cpu_ms > self._limits["cpu_ms"]:
            self._exceeded = "cpu_time"
        if self._exceeded:
            _kill_everything(reap=False)

    def _collect_when_asked(self) -> None:
        data, descriptors = spec.receive(self._link)
        if not data:
            return
        message = spec.decode(data)
        if "collect" in message and descriptors:
            with open(descriptors[0], "wb", buffering=0) as sink:
                _collect(sink.fileno(), message["collect"], message["max_bytes"], message["max_files"])


def _spawn(command: Mapping[str, Any], streams: tuple[int, int, int], slave: str) -> int:
    """Start the program in a session of its own. slave: path of its terminal, or "" for pipes."""
    argv = [os.fsencode(word) for word in command["argv"]]
    env = {os.fsencode(name): os.fsencode(value) for name, value in command["env"].items()}
    actions: list[tuple[int, int, int] | tuple[int, int, str, int, int]] = []
    if slave:
        # The first terminal that a session leader opens becomes its controlling terminal.
        actions.append((os.POSIX_SPAWN_OPEN, 0, slave, os.O_RDWR, 0))
        actions += [(os.POSIX_SPAWN_DUP2, 0, 1), (os.POSIX_SPAWN_DUP2, 0, 2)]
    else:
        actions += [(os.POSIX_SPAWN_DUP2, stream, number) for number, stream in enumerate(streams)]
    return os.posix_spawn(
        _executable(command["argv"][0], command["env"].get("PATH", "")),
        argv,
        env,
        file_actions=actions,
        setsid=True,
        setsigmask=[],
        setsigdef=_SIGNALS_PYTHON_CHANGED,
    )


def _executable(name: str, path: str) -> str:
    """Find a program as a shell would. Raises: FileNotFoundError naming it."""
    if "/" in name:
        return name
    for folder in path.split(":"):
        if folder and os.access(f"{folder}/{name}", os.X_OK):
            return f"{folder}/{name}"
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)


def _write_files(command: Mapping[str, Any], descriptors: list[int]) -> None:
    """Write the job's files below the working directory: first what a pack brings, then the files of the message.

    A pack comes as a descriptor; the message's files come in a second one, so that no content passes through JSON.
    """
    for descriptor, files in zip(descriptors, command["packs"], strict=True):
        for name, offset, size, mode in files:
            folder = os.path.dirname(name)
            if folder:
                os.makedirs(folder, exist_ok=True)
            target = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
            try:
                while size > 0:
                    sent = os.sendfile(target, descriptor, offset, size)
                    if sent == 0:
                        raise OSError(errno.EIO, "the pack is shorter than its index", name)
                    offset, size = offset + sent, size - sent
                os.fchmod(target, mode)
            finally:
                os.close(target)
        os.close(descriptor)


def _open_terminal(rows: int, columns: int) -> tuple[list[int], str]:
    """Open a terminal of the sandbox's own devpts. Returns the master, for the server, and the slave's path."""
    master = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    tiocgptn, tiocsptlck = 0x80045430, 0x40045431
    fcntl.ioctl(master, tiocsptlck, struct.pack("i", 0))
    (number,) = struct.unpack("I", fcntl.ioctl(master, tiocgptn, bytes(4)))
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    return [master], f"/dev/pts/{number}"


def _kill_everything(*, reap: bool = True) -> None:
    """Kill every process of the sandbox but us, however many there are and whatever they do."""
    while True:
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)
        if not reap:
            return
        try:
            while True:
                os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _collect(sink: int, patterns: list[str], max_bytes: int, max_files: int) -> None:
    """Send the files that match: a length and a JSON index, then the contents one after the other.

    Everything else is dead by now, so nothing changes under us. Links are never followed, only regular files are opened.
    """
    index: list[tuple[str, int, int]] = []
    skipped: list[tuple[str, str]] = []
    opened: list[tuple[int, int]] = []
    total = 0
    for name, descriptor, status in _regular_files(skipped):
        if not any(fnmatchcase(name, pattern) for pattern in patterns):
            os.close(descriptor)
        elif total + status.st_size > max_bytes or len(index) >= max_files:
            os.close(descriptor)
            skipped.append((name, "too large" if total + status.st_size > max_bytes else "too many"))
        else:
            total += status.st_size
            index.append((name, status.st_size, stat.S_IMODE(status.st_mode) & 0o755))
            opened.append((descriptor, status.st_size))
            if len(opened) > 256:  # keep few descriptors: what has a place in the index is read again by name
                os.close(opened[-1][0])
                opened[-1] = (-1, status.st_size)
    header = spec.encode({"files": index, "skipped": skipped[:100]})
    _send_all(sink, struct.pack("<I", len(header)) + header)
    for (descriptor, size), (name, _size, _mode) in zip(opened, index, strict=True):
        if descriptor < 0:
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        offset = 0
        while offset < size:
            sent = os.sendfile(sink, descriptor, offset, size - offset)
            if sent == 0:
                return  # the reader sees a short pack and refuses it
            offset += sent
        os.close(descriptor)


def _regular_files(skipped: list[tuple[str, str]]) -> Iterator[tuple[str, int, os.stat_result]]:
    """Yield (name, open descriptor, status) of each regular file below the working directory, in a stable order."""
    seen = 0
    folders = [""]
    while folders:
        folder = folders.pop()
        try:
            descriptor = os.open(folder or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            skipped.append((folder, os.strerror(error.errno or 0)))
            continue
        names = sorted(os.listdir(descriptor))
        deeper: list[str] = []
        for each in names:
            seen += 1
            if seen > _COLLECT_ENTRIES:
                os.close(descriptor)
                skipped.append((folder, "too many entries"))
                return
            name = f"{folder}/{each}" if folder else each
            try:
                status = os.stat(each, dir_fd=descriptor, follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    if name.count("/") < _COLLECT_FOLDERS_DEEP:
                        deeper.append(name)
                    continue
                if not stat.S_ISREG(status.st_mode):
                    skipped.append((name, "not a regular file"))
                    continue
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                file = os.open(each, flags, dir_fd=descriptor)
            except OSError as error:
                skipped.append((name, os.strerror(error.errno or 0)))
                continue
            yield name, file, os.fstat(file)
        os.close(descriptor)
        folders += reversed(deeper)


def _send_all(sink: int, data: bytes) -> None:
    while data:
        data = data[os.write(sink, data) :]


def _lower(limit: int, value: int) -> None:
    """Set a resource limit, soft and hard, never above what the hard one is."""
    hard = resource.getrlimit(limit)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(limit, (value, value))


def _write(path: str, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)
