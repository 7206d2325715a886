"""The input of one program: written to its pipe or terminal, and held back while the program does not read."""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import termios

_WRITE_BYTES = 64 << 10
_END_OF_FILE = b"\x04"
"""The character that ends the input of a terminal."""


class InputWriter:
    """Writes a program's stdin. pipe: its write end, non-blocking, becomes ours. A terminal stays the output reader's.

    Everything is ignored once the input is closed.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, pipe: int) -> None:
        self._loop = loop
        self._descriptor = pipe
        self._is_terminal = False
        self._writable: asyncio.Future[None] | None = None
        self._feeding: asyncio.Task[None] | None = None

    def use_terminal(self, master: int) -> None:
        """Write to a terminal instead of the pipe."""
        self.close()
        self._descriptor = master
        self._is_terminal = True

    def resize(self, rows: int, columns: int) -> None:
        """Set the size of the terminal, if there is one."""
        if self._is_terminal and self._descriptor >= 0:
            fcntl.ioctl(self._descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    async def write(self, data: memoryview) -> None:
        """Write everything; waits while the program does not read."""
        while data := self._offer(data):
            await self._wait_until_writable()

    def feed(self, data: bytes, *, then_end: bool) -> None:
        """Write a program's first input, in the background if it does not fit at once. then_end: nothing comes after it."""
        rest = self._offer(memoryview(data))
        if rest:
            self._feeding = self._loop.create_task(self._feed(rest, then_end=then_end))
        elif then_end:
            self.end()

    def end(self) -> None:
        """End the input: close the pipe, or send the terminal's end-of-file character."""
        if not self._is_terminal:
            self.close()
        elif self._descriptor >= 0:
            try:
                os.write(self._descriptor, _END_OF_FILE)
            except OSError:
                return

    def close(self) -> None:
        """Close the pipe, or forget the terminal, and wake a waiting writer."""
        if self._descriptor < 0:
            return
        if self._feeding is not None:
            self._feeding.cancel()
        if self._writable is not None:
            self._loop.remove_writer(self._descriptor)
            wake(self._writable)
        if not self._is_terminal:
            os.close(self._descriptor)
        self._descriptor = -1

    def _offer(self, data: memoryview) -> memoryview:
        """Write as much as fits now. Returns the rest, which is empty once the input is closed."""
        while data and self._descriptor >= 0:
            try:
                data = data[os.write(self._descriptor, data[:_WRITE_BYTES]) :]
            except BlockingIOError:
                return data
            except OSError:  # the program closed its stdin
                if self._is_terminal:
                    break
                self.close()
        return data[:0]

    async def _feed(self, data: memoryview, *, then_end: bool) -> None:
        await self.write(data)
        if then_end:
            self.end()

    async def _wait_until_writable(self) -> None:
        descriptor = self._descriptor
        writable: asyncio.Future[None] = self._loop.create_future()
        self._writable = writable
        self._loop.add_writer(descriptor, wake, writable)
        try:
            await writable
        finally:
            self._writable = None
            if descriptor == self._descriptor:
                self._loop.remove_writer(descriptor)


def wake(waiting: asyncio.Future[None]) -> None:
    """Complete a future, unless it is done."""
    if not waiting.done():
        waiting.set_result(None)
