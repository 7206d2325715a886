"""A program that is started before its command comes, in a sandbox that is kept ready, and waits.

Interpreters are the real program with its real command line. Some wait at a hook that they load by themselves at their start,
before the main file: it reads a pipe, the descriptor `GATE`, to its end (words, each with a NUL after it), wipes out its own
traces, and lets the interpreter go on. Others wait where they open the main file, without knowing: we hold a lease on it.
A compiler waits in a program of ours that calls it.

Used once, like everything here; it has seen nothing of any other run.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

FOLDER = "/.ahead"
"""Where hooks lie, in every sandbox, read-only."""

GATE = 200
"""The descriptor that a hook reads; so high that the interpreter's own have the numbers that they always have."""

WORD_BYTES = 32 << 10
"""Words that fit into the pipe without anybody reading, together."""

_PROCESS_CLOCK = 2
_LEASE_TIME = "/proc/sys/fs/lease-break-time"
_LEASE_PART = 0.8
"""How much of the time that the kernel gives a lease a program waits before it is started anew."""

Spawn = Callable[[Mapping[str, Any], Mapping[int, int]], int]
"""Starts a program with further descriptors, target -> source. Returns its pid. Raises: OSError."""


class Waiting:
    """The program that waits. Raises, when made: OSError."""

    def __init__(self, ahead: Mapping[str, Any], spawn: Spawn) -> None:
        """ahead: as in `spec.Ahead`."""
        self._ahead = ahead
        self._spawn = spawn
        self._pid = 0
        self._start()

    @property
    def held(self) -> Mapping[str, int]:
        """Files that must be written through these descriptors: whoever opens them waits."""
        return self._place.held

    @property
    def patience_s(self) -> float | None:
        """After how long it must be started anew; None: never."""
        return self._place.patience_s

    def renew(self) -> None:
        """Start another one in its place. Raises: OSError; nothing waits then."""
        self.end()
        self._start()

    def release(self, words: Sequence[str], limits: Mapping[int, int]) -> tuple[int, float] | None:
        """Let it go on, told `words`; gives its pid and the processor time it has used so far, in milliseconds.

        Every file of the command has been written. None when it has ended; then nothing of it is left.
        """
        try:
            if self.has_ended():
                return None
            used_ms = time.clock_gettime((~self._pid << 3) | _PROCESS_CLOCK) * 1000
            _limit_all(limits)
            self._place.let_go(words)
            self._place.close()
            return self._pid, used_ms
        except (OSError, ValueError):
            self.end()
            return None

    def has_ended(self) -> bool:
        """Tell whether it does not wait any more; then nothing of it is left."""
        if self._pid and os.waitpid(self._pid, os.WNOHANG) == (0, 0):
            return False
        self._pid = 0
        self.end()
        return True

    def end(self) -> None:
        """Let nothing of it be left. We are PID 1, and besides us there is only what it started."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)
        if self._pid:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._pid, 0)
            self._pid = 0
        self._place.close()  # last: it would go on

    def _start(self) -> None:
        main = self._ahead["main"]
        if main:
            os.makedirs(os.path.dirname(main) or ".", exist_ok=True)
        self._place: _Gate | _HeldFile = _HeldFile(main) if self._ahead["held"] else _Gate(main)
        try:
            self._pid = self._spawn({"argv": self._ahead["argv"], "env": dict(self._ahead["env"])}, self._place.descriptors)
        except OSError:
            self._place.close()
            raise
        self._place.started()


class _Gate:
    """The pipe that a hook reads."""

    held: Mapping[str, int] = {}
    patience_s: float | None = None

    def __init__(self, main: str) -> None:
        if main:  # some interpreters open the main file before they come to the hook; it is written in place
            placeholder = os.open(main, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
            os.write(placeholder, b"\n")  # Ruby looks at the first bytes early, and would not come back to an empty file
            os.close(placeholder)
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self.descriptors = {GATE: self._read}

    def started(self) -> None:
        os.close(self._read)
        self._read = -1

    def let_go(self, words: Sequence[str]) -> None:
        if words:
            os.write(self._write, b"".join(os.fsencode(word) + b"\0" for word in words))

    def close(self) -> None:
        for descriptor in (self._read, self._write):
            if descriptor >= 0:
                os.close(descriptor)
        self._read = self._write = -1


class _HeldFile:
    """The main file, on which we have a lease: an open(2) of it sleeps until we give that back.

    The kernel takes it away after a while and tells us by a signal, which must be ignored. Source: fcntl(2), "Leases".
    """

    descriptors: Mapping[int, int] = {}

    def __init__(self, main: str) -> None:
        with open(_LEASE_TIME, encoding="ascii") as file:
            lease_s = int(file.read())
        self.patience_s = lease_s * _LEASE_PART if lease_s else None
        signal.signal(signal.SIGIO, signal.SIG_IGN)
        descriptor = os.open(main, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self.held = {os.path.normpath(main): descriptor}
        try:
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        except OSError:
            self.close()
            raise

    def started(self) -> None:
        return

    def let_go(self, words: Sequence[str]) -> None:
        assert not words  # noqa: S101 - nobody plans that: all its words are on its command line
        self.close()

    def close(self) -> None:
        for descriptor in self.held.values():
            os.close(descriptor)  # which ends the lease
        self.held = {}


def _limit_all(limits: Mapping[int, int]) -> None:
    """Lower the limits of every process here but ours: what waits may have children. What they start inherits."""
    lowered: set[str] = set()
    while fresh := {name for name in os.listdir("/proc") if name.isdigit() and name != "1"} - lowered:
        for name in fresh:
            with contextlib.suppress(ProcessLookupError):
                for limit, value in limits.items():
                    resource.prlimit(int(name), limit, (value, value))
        lowered |= fresh
