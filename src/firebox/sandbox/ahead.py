"""A program that is started before its command comes, in a sandbox that is kept ready, and waits at a hook of its own.

An interpreter is the real program with its real command line: the hook is something that it loads by itself at its start,
before the main file. The hook reads a pipe, the descriptor `GATE`, to its end (words, each with a NUL after it), wipes out
its own traces, and lets the interpreter go on. A compiler waits in a program of ours that calls it.
Used once, like everything here; it has seen nothing of any other run.
"""

from __future__ import annotations

import contextlib
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


class Waiting:
    """The program that waits. Raises, when made: OSError."""

    def __init__(self, ahead: Mapping[str, Any], spawn: Callable[[Mapping[str, Any], dict[int, int]], int]) -> None:
        """ahead: as in `spec.Ahead`. spawn: starts a program with further descriptors, target -> source."""
        if ahead["main"]:  # some interpreters open the main file before they come to the hook; it is written in place
            os.makedirs(os.path.dirname(ahead["main"]) or ".", exist_ok=True)
            main = os.open(ahead["main"], os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
            os.write(main, b"\n")  # Ruby looks at the first bytes early, and would not come back to an empty file
            os.close(main)
        gate_read, self._gate = os.pipe()
        os.set_blocking(self._gate, False)
        try:
            self._pid = spawn({"argv": ahead["argv"], "env": dict(ahead["env"])}, {GATE: gate_read})
        except OSError:
            os.close(self._gate)
            raise
        finally:
            os.close(gate_read)

    def release(self, words: Sequence[str] | None, limits: Mapping[int, int]) -> tuple[int, float] | None:
        """Let it go on, told `words`; gives its pid and the processor time it has used so far, in milliseconds.

        None when it cannot, because it ended, or must not (None); then nothing of it is left.
        """
        try:
            if words is None or os.waitpid(self._pid, os.WNOHANG) != (0, 0):
                return None
            used_ms = time.clock_gettime((~self._pid << 3) | _PROCESS_CLOCK) * 1000
            for limit, value in limits.items():
                resource.prlimit(self._pid, limit, (value, value))
            if words:
                os.write(self._gate, b"".join(os.fsencode(word) + b"\0" for word in words))
            pid, self._pid = self._pid, 0
            return pid, used_ms
        except (OSError, ValueError):
            return None
        finally:
            os.close(self._gate)
            self._end()

    def _end(self) -> None:
        if self._pid:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(self._pid, signal.SIGKILL)
                os.waitpid(self._pid, 0)
            self._pid = 0
