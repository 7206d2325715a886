"""The output of one program: read from its pipes or terminal, and cut at the limit."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections import deque
from collections.abc import Callable
from functools import partial

from firebox.sandbox.instance.watcher import Watcher
from firebox.sandbox.spec import Command, Output, StreamName

_READ_BYTES = 64 << 10
_DISCARD_BYTES = 1 << 20
_HELD_BYTES = 4 * _READ_BYTES
"""How much is read ahead before the program has to wait."""


class OutputReader:
    """Reads stdout and stderr to their ends. Backpressure: the program blocks while what was read is not taken.

    null: a descriptor of /dev/null, open for writing. stdout, stderr: non-blocking, become ours.
    """

    def __init__(self, watcher: Watcher, null: int, stdout: int, stderr: int) -> None:
        self._watcher = watcher
        self._null = null
        self._streams: dict[StreamName, int] = {"stdout": stdout, "stderr": stderr}
        self._terminal = -1
        self._room: dict[StreamName, int] = {}
        self._held: deque[Output] = deque()
        self._held_bytes = 0
        self._arrived: Callable[[], None] = _do_nothing
        self._ended: Callable[[], None] = _do_nothing
        self._cut: Callable[[], None] = _do_nothing
        self.truncated: dict[StreamName, bool] = {"stdout": False, "stderr": False}
        self.is_paused = False

    @property
    def is_open(self) -> bool:
        """Whether any stream has not ended."""
        return bool(self._streams)

    @property
    def is_done(self) -> bool:
        """Whether every stream has ended and everything was taken."""
        return not self._streams and not self._held

    def start(
        self, command: Command, arrived: Callable[[], None], ended: Callable[[], None], kill: Callable[[str], None]
    ) -> None:
        """Start reading the output of a command, and discarding what exceeds its limit.

        arrived: called when there is more to take. ended: called for each stream that ends, before its descriptor is closed.
        kill: called with "output" at the limit, if the command is to be killed there.
        """
        self._room = {"stdout": command.output_bytes, "stderr": command.output_bytes}
        self._arrived, self._ended = arrived, ended
        if command.kill_on_output:
            self._cut = partial(kill, "output")
        self._watch()

    def use_terminal(self, master: int) -> None:
        """Read the master side of a terminal instead of the pipes. master: non-blocking, becomes ours."""
        self._close_streams()
        self._streams["stdout"] = self._terminal = master
        self._watch()

    def take(self) -> Output | None:
        """Return the next piece; None when there is none now."""
        if not self._held:
            return None
        output = self._held.popleft()
        self._held_bytes -= len(output.data)
        if self.is_paused and not self._held:
            self.is_paused = False
            self._watch()
        return output

    def close(self) -> None:
        """Stop reading; what was read can still be taken."""
        self._close_streams()
        self.is_paused = False
        self._arrived = self._ended = self._cut = _do_nothing  # break the reference cycle

    def _watch(self) -> None:
        for name, descriptor in self._streams.items():
            self._watcher.add(descriptor, partial(self._read, name))

    def _close_streams(self) -> None:
        for descriptor in self._streams.values():
            self._watcher.remove(descriptor)
            os.close(descriptor)
        self._streams.clear()

    def _read(self, name: StreamName) -> None:
        descriptor = self._streams[name]
        try:
            if self.truncated[name] and descriptor != self._terminal:
                # Let the kernel discard the rest without a copy.
                if os.splice(descriptor, self._null, _DISCARD_BYTES):
                    return
                data = b""
            else:
                data = os.read(descriptor, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError:  # EIO: the last process closed the terminal
            data = b""
        if not data:
            del self._streams[name]
            self._watcher.remove(descriptor)
            self._ended()
            os.close(descriptor)
        elif not self.truncated[name]:
            room = self._room[name]
            if len(data) > room:
                data = data[:room]
                self.truncated[name] = True
                self._cut()
                with contextlib.suppress(OSError):  # a larger pipe only discards faster; a terminal is none
                    fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _DISCARD_BYTES)
            if data:
                self._room[name] = room - len(data)
                self._hold(Output(name, data))

    def _hold(self, output: Output) -> None:
        self._held.append(output)
        self._held_bytes += len(output.data)
        if self._held_bytes >= _HELD_BYTES:
            self.is_paused = True
            for descriptor in self._streams.values():
                self._watcher.remove(descriptor)
        self._arrived()


def _do_nothing() -> None:
    return
