"""The output of one program: read from its pipes or terminal, and cut at the limit."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from functools import partial
from typing import Literal

from firebox.sandbox.instance.watcher import Watcher

READ_BYTES = 64 << 10
_DISCARD_BYTES = 1 << 20

StreamName = Literal["stdout", "stderr"]
OutputSink = Callable[[StreamName, bytes], None]


class OutputReader:
    """Reads stdout and stderr to their ends. Backpressure: while it is paused the program blocks once its pipe is full.

    null: a descriptor of /dev/null, open for writing. stdout, stderr: non-blocking, become ours.
    """

    def __init__(self, watcher: Watcher, null: int, stdout: int, stderr: int) -> None:
        self._watcher = watcher
        self._null = null
        self._streams: dict[StreamName, int] = {"stdout": stdout, "stderr": stderr}
        self._terminal = -1
        self._sink: OutputSink = _ignore
        self._ended: Callable[[], None] = _do_nothing
        self._overflowed: Callable[[], None] = _do_nothing
        self._max_bytes = 0
        self._counts = {"stdout": 0, "stderr": 0}
        self.truncated = {"stdout": False, "stderr": False}
        self.is_paused = False

    @property
    def is_done(self) -> bool:
        """Whether every stream has ended."""
        return not self._streams

    def start(self, max_bytes: int, sink: OutputSink, ended: Callable[[], None], overflowed: Callable[[], None]) -> None:
        """Start reading.

        max_bytes: of each stream; the rest is discarded. sink: called with the stream's name and each piece as it arrives.
        ended: called for each stream that ends, before its descriptor is closed. overflowed: called for each piece that was cut.
        """
        self._max_bytes = max_bytes
        self._sink = sink
        self._ended = ended
        self._overflowed = overflowed
        self._watch()

    def use_terminal(self, master: int) -> None:
        """Read the master side of a terminal instead of the pipes. master: non-blocking, becomes ours."""
        for descriptor in self._streams.values():
            self._watcher.remove(descriptor)
            os.close(descriptor)
        self._streams = {"stdout": master}
        self._terminal = master
        self._watch()

    def pause(self) -> None:
        if not self.is_paused:
            self.is_paused = True
            for descriptor in self._streams.values():
                self._watcher.remove(descriptor)

    def resume(self) -> None:
        if self.is_paused:
            self.is_paused = False
            self._watch()

    def close(self) -> None:
        for descriptor in self._streams.values():
            self._watcher.remove(descriptor)
            os.close(descriptor)
        self._streams.clear()
        self._sink, self._ended, self._overflowed = _ignore, _do_nothing, _do_nothing  # break the reference cycle

    def _watch(self) -> None:
        for name, descriptor in self._streams.items():
            self._watcher.add(descriptor, partial(self._read, name))

    def _read(self, name: StreamName) -> None:
        descriptor = self._streams[name]
        try:
            if self.truncated[name] and descriptor != self._terminal:
                # Let the kernel discard the rest without a copy.
                if os.splice(descriptor, self._null, _DISCARD_BYTES):
                    return
                data = b""
            else:
                data = os.read(descriptor, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:  # EIO: the last process closed the terminal
            data = b""
        if not data:
            del self._streams[name]
            self._watcher.remove(descriptor)
            self._ended()
            os.close(descriptor)
            return
        room = self._max_bytes - self._counts[name]
        self._counts[name] += len(data)
        if len(data) > room:
            if not self.truncated[name] and descriptor != self._terminal:
                fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _DISCARD_BYTES)
            self.truncated[name] = True
            data = data[: max(room, 0)]
            self._overflowed()
        if data:
            self._sink(name, data)


def _ignore(_stream: StreamName, _data: bytes) -> None:
    return


def _do_nothing() -> None:
    return
