"""A run in the foreground of a terminal: forwards input, output, signals and window sizes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import termios
import threading
import tty
from collections.abc import Generator
from typing import Any

from firebox.domain.model import Cancel, Eof, Finished, Message, Output, Resize, Result, Run, Signal, Stdin, Terminal

READ_BYTES = 64 * 1024
_DESCRIPTORS = {"stdout": 1, "stderr": 2}


def terminal_size() -> Terminal:
    import shutil  # few runs use a terminal

    size = shutil.get_terminal_size()
    return Terminal(rows=size.lines, columns=size.columns)


class Session:
    """Connects a run with this process's standard streams. silent: keep output in the result only."""

    def __init__(self, run: Run, *, silent: bool, terminal: bool) -> None:
        self._run = run
        self._silent = silent
        self._terminal = terminal
        self._interrupts = 0
        self._sending: set[asyncio.Task[None]] = set()

    async def follow(self) -> Result:
        """Forward everything until the run has ended. Raises: BrokenPipeError, and cancels the run, if its reader is gone."""
        with self._signals(), _raw_terminal() if self._terminal else contextlib.nullcontext():
            self._start_reading()
            async for event in self._run.events():
                if isinstance(event, Output) and not self._silent:
                    # In a thread: a full pipe must not stop the sandbox's timeouts.
                    await asyncio.to_thread(_write, _DESCRIPTORS[event.stream], event.data)
                elif isinstance(event, Finished):
                    return event.result
        raise AssertionError("events end with Finished")

    def _start_reading(self) -> None:
        """Forward standard input from a thread: regular files cannot be polled, and a read may block forever."""
        loop = asyncio.get_running_loop()

        def send(message: Message) -> None:
            asyncio.run_coroutine_threadsafe(self._run.send(message), loop).result()

        def read() -> None:
            with contextlib.suppress(RuntimeError, OSError):  # the event loop ended before the input
                while data := os.read(0, READ_BYTES):
                    send(Stdin(data))
                send(Eof())

        threading.Thread(target=read, daemon=True, name="standard input").start()

    @contextlib.contextmanager
    def _signals(self) -> Generator[None]:
        loop = asyncio.get_running_loop()
        handlers = {
            signal.SIGINT: self._interrupt,
            signal.SIGTERM: lambda: self._send(Cancel()),
            signal.SIGHUP: lambda: self._send(Cancel()),
        }
        if self._terminal:
            handlers[signal.SIGWINCH] = self._resize
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        try:
            yield
        finally:
            for number in handlers:
                loop.remove_signal_handler(number)

    def _interrupt(self) -> None:
        """Forward the first Ctrl-C to the program, and kill it on the second."""
        self._interrupts += 1
        self._send(Signal("SIGINT") if self._interrupts == 1 else Cancel())

    def _resize(self) -> None:
        size = terminal_size()
        self._send(Resize(size.rows, size.columns))

    def _send(self, message: Message) -> None:
        task = asyncio.ensure_future(self._run.send(message))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)


@contextlib.contextmanager
def _raw_terminal() -> Generator[None]:
    """Put the terminal into raw mode, so that every key reaches the program's terminal."""
    if not sys.stdin.isatty():
        yield
        return
    before: list[Any] = termios.tcgetattr(0)
    tty.setraw(0, termios.TCSADRAIN)  # TCSAFLUSH would discard what was typed during startup
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
