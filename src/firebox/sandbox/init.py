"""What PID 1 of a sandbox does once it has given everything up: take one command, run it, reap, report, hand files back."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import select
import signal
import socket
import struct
import termios
import time
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from firebox.sandbox import spec
from firebox.sandbox.ahead import Waiting
from firebox.sandbox.collect import collect
from firebox.sandbox.sampling import Sampler
from firebox.sandbox.supervisor import Supervisor

_SAMPLE_S = 0.01
OUT_OF_THE_WAY = 100
"""Where descriptors are that must not take the low numbers."""
OOM_SCORE_DESCRIPTOR = 4
"""Where a sandbox keeps its own oom_score_adj open until the program is started."""

_OOM_SCORE_OF_PROGRAM = b"1000"
_CPU_SLACK_S = 2
"""How much later than our own clock the kernel's ends a program."""
_STACK_AT_LEAST_BYTES = 128 << 10
"""With less, no program can be started with arguments."""
_INHERITED_LIMITS = (resource.RLIMIT_STACK, resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC)
_REHEARSED = b'{"argv":["/bin/sh","main.sh"],"env":{"PATH":"/usr/bin:/bin"},"packs":[[["main.sh",0,7,420]]],"cpu_ms":1}'
"""A command as it comes."""
_SIGNALS_TO_RESET = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
"""All: Python changes some, and what started the server may have it ignore others, as nohup(1) does."""


class Init:
    """The served part: says ready, waits for the command, runs it, reaps, reports, collects. ahead: started before that."""

    def __init__(
        self, link: socket.socket, supervisor: Supervisor | None, *, sampled: bool, ahead: spec.Ahead | None = None
    ) -> None:
        self._link = link
        self._supervisor = supervisor
        self._sampled = sampled
        self._ahead = ahead
        self._used_before_ms = 0.0
        self._sampler: Sampler | None = None

    def serve(self) -> NoReturn:
        stdin_read, stdin_write = os.pipe()
        stdout_read, stdout_write = os.pipe()
        stderr_read, stderr_write = os.pipe()
        # Opened by the sandbox's own user, so that programs may open /dev/stdout and /dev/stdin by name.
        spec.send(self._link, {"ready": True}, (stdin_write, stdout_read, stderr_read))
        outputs: list[int] = []
        if self._ahead is not None:
            outputs = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, OUT_OF_THE_WAY) for each in (stdout_read, stderr_read)]
        for descriptor in (stdin_write, stdout_read, stderr_read):
            os.close(descriptor)
        # Low numbers: posix_spawn takes none that RLIMIT_NOFILE, lowered below, would not allow.
        stdout_write, stderr_write = _renumbered(stdout_write), _renumbered(stderr_write)
        streams = (stdin_read, stdout_write, stderr_write)
        waiting = self._start_ahead(streams)
        wake_read = _wake_when_children_end()
        _rehearse()
        waiting = self._look_after(waiting, wake_read, outputs)
        for descriptor in outputs:
            os.close(descriptor)
        data, descriptors = spec.receive(self._link, spec.MESSAGE_BYTES)
        if not data:
            os._exit(0)
        command = spec.decode(data)
        if "long" in command:
            with open(descriptors.pop(), "rb") as file:
                file.seek(0)
                command = spec.decode(file.read(command["long"]))
        if waiting is not None and (command["tell"] is None or not waiting.held.keys() <= _names(command)):
            waiting.end()  # not what it waits for
            waiting = None
        terminal: list[int] = []
        held: list[int] = []
        slave = ""
        step = "files"
        try:
            _write_files(command, descriptors, waiting.held if waiting is not None else {})
            if command["terminal"]:
                step = "terminal"
                terminal, slave = _open_terminal(*command["terminal"])
                # Ours as long as the program runs: else closing its streams would hang up a terminal that it may use again.
                held = [os.open(slave, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)]
            step = "limits"
            lower(resource.RLIMIT_STACK, max(command["stack_bytes"], _STACK_AT_LEAST_BYTES))
            lower(resource.RLIMIT_NOFILE, command["open_files"])
            lower(resource.RLIMIT_FSIZE, command["file_size_bytes"])
            lower(resource.RLIMIT_NPROC, command["processes"] + 1)
            if self._supervisor is not None:
                self._supervisor.shared_limit_bytes = command["memory_bytes"]
            step = "start"
            released = self._release(waiting, command)
            pid = released or _spawn_with_cpu_limit(command, streams, slave)
            os.close(OOM_SCORE_DESCRIPTOR)
        except (OSError, ValueError) as error:
            number = error.errno if isinstance(error, OSError) else None
            detail = f"{os.strerror(number)}: {error.filename}" if number and isinstance(error, OSError) else str(error)
            spec.send(self._link, {"refused": step, "errno": number or 0, "detail": detail})
            os._exit(0)
        for descriptor in streams:
            os.close(descriptor)
        spec.send(self._link, {"started": True, "ahead": released > 0}, terminal)
        for descriptor in terminal:
            os.close(descriptor)
        if self._sampled:
            self._sampler = Sampler(command["memory_bytes"], command["cpu_ms"], self._used_before_ms, self._supervisor)
        status = self._watch(pid, wake_read)
        _kill_everything()
        for descriptor in held:
            os.close(descriptor)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        message: dict[str, Any] = {
            "exited": os.waitstatus_to_exitcode(status),
            "cpu_ms": max((used.ru_utime + used.ru_stime) * 1000 - self._used_before_ms, 0.0),
            "exceeded": "",
        }
        if self._sampler is not None:
            message["exceeded"] = self._sampler.exceeded
            message["memory_peak_bytes"] = max(self._sampler.memory_peak_bytes, used.ru_maxrss * 1024)
        spec.send(self._link, message)
        self._collect_when_asked()
        os._exit(0)

    def _start_ahead(self, streams: tuple[int, int, int]) -> Waiting | None:
        """Start what is to be started before the command comes; None where there is nothing, or it does not start."""
        if self._ahead is None:
            return None

        def spawn(command: Mapping[str, Any], further: Mapping[int, int]) -> int:
            return _spawn_marked(command, streams, "", further)

        try:
            return Waiting(self._ahead._asdict(), spawn)
        except OSError:
            return None  # the command will be started the usual way, or say what is wrong

    def _look_after(self, waiting: Waiting | None, wake_read: int, outputs: Iterable[int]) -> Waiting | None:
        """Return what waits when there is something on the link. Until then start it anew in time, give up one that ends.

        outputs: where to take away what it said nevertheless, before anybody else reads there.
        """
        poll = select.poll()
        poll.register(self._link, select.POLLIN)
        poll.register(wake_read, select.POLLIN)
        self._register_supervisor(poll)
        while waiting is not None:
            with contextlib.suppress(BlockingIOError):
                os.read(wake_read, 4096)
            if waiting.has_ended():  # perhaps before anything woke us
                _empty(outputs)
                return None
            patience_ms = None if waiting.patience_s is None else waiting.patience_s * 1000
            ready = [descriptor for descriptor, _event in poll.poll(patience_ms)]
            self._answer(ready)
            if self._link.fileno() in ready:
                break
            if not ready:
                try:
                    waiting.renew()
                except OSError:
                    return None
        return waiting

    def _release(self, waiting: Waiting | None, command: Mapping[str, Any]) -> int:
        """Let the program that waits go on as the command, with our limits; 0 when there is none that can."""
        if waiting is None:
            return 0
        limits = {limit: resource.getrlimit(limit)[1] for limit in _INHERITED_LIMITS}
        if command["cpu_ms"]:
            limits[resource.RLIMIT_CPU] = _cpu_limit_s(command)
        released = waiting.release(command["tell"], limits)
        if released is None:
            return 0
        pid, self._used_before_ms = released
        return pid

    def _watch(self, pid: int, wake_read: int) -> int:
        """Pass signals on and reap until the program itself has ended. Returns its wait status."""
        poll = select.poll()
        poll.register(wake_read, select.POLLIN)
        poll.register(self._link, select.POLLIN)
        self._register_supervisor(poll)
        sample_at = time.monotonic() + _SAMPLE_S
        while True:
            patience_ms = max(0.0, sample_at - time.monotonic()) * 1000 if self._sampled else None
            ready = [descriptor for descriptor, _event in poll.poll(patience_ms)]
            self._answer(ready)
            if self._link.fileno() in ready:
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
            # Not after each call that was decided: a program that makes many would have us do nothing but look.
            if self._sampler is not None and time.monotonic() >= sample_at:
                if not self._sampler.exceeded:
                    self._sampler.sample()
                    if self._sampler.exceeded:
                        _kill_everything(reap=False)
                sample_at = time.monotonic() + _SAMPLE_S

    def _register_supervisor(self, poll: select.poll) -> None:
        if self._supervisor is not None:
            poll.register(self._supervisor.descriptor, select.POLLIN)

    def _answer(self, ready: Iterable[int]) -> None:
        """Decide a system call that waits for us."""
        if self._supervisor is not None and self._supervisor.descriptor in ready:
            self._supervisor.answer()

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
        elif "stop" in message:
            _kill_everything(reap=False)

    def _collect_when_asked(self) -> None:
        """Stay until the server hangs up: leaving with messages unread would cost it those that we have sent."""
        while True:
            data, descriptors = spec.receive(self._link, spec.MESSAGE_BYTES)
            if not data:
                return
            message = spec.decode(data)
            if "collect" in message and descriptors:
                with open(descriptors[0], "wb", buffering=0) as sink:
                    limits = message["max_bytes"], message["max_files"], message["budget_ms"]
                    collect(sink.fileno(), message["collect"], *limits)


def _empty(pipes: Iterable[int]) -> None:
    """Throw away what waits in pipes."""
    for pipe in pipes:
        os.set_blocking(pipe, False)
        with contextlib.suppress(BlockingIOError):
            while os.read(pipe, 65536):
                pass


def _wake_when_children_end() -> int:
    """Return a descriptor that becomes readable when a child ends."""
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    os.set_blocking(wake_read, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    return wake_read


def _rehearse() -> None:
    """Go through the motions of what comes when somebody waits.

    We are a fork: the first touch of each page of the interpreter costs a copy, and now nobody waits for it.
    """
    command = spec.decode(_REHEARSED)
    spec.encode({"started": True})
    _executable(command["argv"][0], command["env"]["PATH"])
    for limit in _INHERITED_LIMITS:
        resource.setrlimit(limit, resource.getrlimit(limit))
    _write_files({"packs": [[]]}, [os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)], {})


def _renumbered(descriptor: int) -> int:
    """Move a descriptor to the lowest free number."""
    moved = os.dup(descriptor)
    os.close(descriptor)
    return moved


def _cpu_limit_s(command: Mapping[str, Any]) -> int:
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    wanted = int(command["cpu_ms"]) // 1000 + _CPU_SLACK_S
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)


def _spawn_with_cpu_limit(command: Mapping[str, Any], streams: tuple[int, int, int], slave: str) -> int:
    """Start the program with its RLIMIT_CPU, which must not hold us: a program that sleeps may keep us busy for long."""
    own = resource.getrlimit(resource.RLIMIT_CPU)
    if not command["cpu_ms"]:
        return _spawn_marked(command, streams, slave)
    cpu_s = _cpu_limit_s(command)
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, own[1]))  # inherited, so that not even its first moment is free
    try:
        pid = _spawn_marked(command, streams, slave)
    finally:
        resource.setrlimit(resource.RLIMIT_CPU, own)
    resource.prlimit(pid, resource.RLIMIT_CPU, (cpu_s, cpu_s))  # not reaped yet: the number is still its own
    return pid


def _spawn_marked(
    command: Mapping[str, Any], streams: tuple[int, int, int], slave: str, further: Mapping[int, int] | None = None
) -> int:
    """Start the program as the one that the kernel takes first when memory runs out. We are it for a moment: it inherits."""
    own = os.pread(OOM_SCORE_DESCRIPTOR, 16, 0)
    os.pwrite(OOM_SCORE_DESCRIPTOR, _OOM_SCORE_OF_PROGRAM, 0)
    try:
        return _spawn(command, streams, slave, further or {})
    finally:
        os.pwrite(OOM_SCORE_DESCRIPTOR, own, 0)


def _spawn(command: Mapping[str, Any], streams: tuple[int, int, int], slave: str, further: Mapping[int, int]) -> int:
    """Start the program in a session of its own.

    slave: path of its terminal, or "" for pipes. further: descriptors besides, target -> source.
    """
    argv = [os.fsencode(word) for word in command["argv"]]
    env = {os.fsencode(name): os.fsencode(value) for name, value in command["env"].items()}
    actions: list[tuple[int, int, int] | tuple[int, int, str, int, int]] = []
    if slave:
        # The first terminal that a session leader opens becomes its controlling terminal.
        actions.append((os.POSIX_SPAWN_OPEN, 0, slave, os.O_RDWR, 0))
        actions += [(os.POSIX_SPAWN_DUP2, 0, 1), (os.POSIX_SPAWN_DUP2, 0, 2)]
    else:
        actions += [(os.POSIX_SPAWN_DUP2, stream, number) for number, stream in enumerate(streams)]
    actions += [(os.POSIX_SPAWN_DUP2, source, target) for target, source in further.items()]
    return os.posix_spawn(
        _executable(command["argv"][0], command["env"].get("PATH", "")),
        argv,
        env,
        file_actions=actions,
        setsid=True,
        setsigmask=[],
        setsigdef=_SIGNALS_TO_RESET,
    )


def _executable(name: str, path: str) -> str:
    """Find a program as a shell would. Raises: FileNotFoundError naming it."""
    if "/" in name:
        return name
    for folder in path.split(":"):
        if folder and os.access(f"{folder}/{name}", os.X_OK):
            return f"{folder}/{name}"
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)


def _names(command: Mapping[str, Any]) -> set[str]:
    """Name every file that a command brings."""
    return {name for files in command["packs"] for name, _offset, _size, _mode in files}


def _write_files(command: Mapping[str, Any], descriptors: list[int], held: Mapping[str, int]) -> None:
    """Write the job's files below the working directory: first what a pack brings, then the files of the message.

    A pack comes as a descriptor; the message's files come in a second one, so that no content passes through JSON.
    held: name -> descriptor of those that cannot be opened.
    """
    for descriptor, files in zip(descriptors, command["packs"], strict=True):
        for name, offset, size, mode in files:
            if not all(part not in ("", ".", "..") for part in name.split("/")):
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), name)
            folder = os.path.dirname(name)
            if folder:
                os.makedirs(folder, exist_ok=True)
            if name in held:
                target = os.dup(held[name])
            else:
                target = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
            try:
                length = size
                while size > 0:
                    sent = os.sendfile(target, descriptor, offset, size)
                    if sent == 0:
                        raise OSError(errno.EIO, "the pack is shorter than its index", name)
                    offset, size = offset + sent, size - sent
                os.ftruncate(target, length)  # last: whoever reads a placeholder must not find it empty for a moment
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


def lower(limit: int, value: int) -> None:
    """Set a resource limit, soft and hard, never above what the hard one is."""
    hard = resource.getrlimit(limit)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(limit, (value, value))
