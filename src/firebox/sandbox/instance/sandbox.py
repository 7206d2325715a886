"""One sandbox as the server holds it.

A request never waits for the launcher when a sandbox is ready: the command goes straight to its PID 1, output comes straight from
the program's pipes, and the meters are read through file descriptors.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Protocol

from firebox.sandbox.instance.input_writer import InputWriter, wake
from firebox.sandbox.instance.link import Hangup, Link, Running
from firebox.sandbox.instance.output_reader import OutputReader
from firebox.sandbox.instance.usage import KILLED_HINT, Usage
from firebox.sandbox.instance.watcher import Watcher
from firebox.sandbox.plan.cgroups import Meter
from firebox.sandbox.protocol.messages import Exited
from firebox.sandbox.protocol.pack import Collected, PackReader
from firebox.sandbox.spec import Command, CommandRefused, Event, Exit, Output, SandboxFailure, Started

KILL_PATIENCE_S = 15.0
"""After a kill the kernel should need milliseconds. After this time the sandbox is reported as failed."""
COLLECT_BUDGET_MS = 10_000.0
"""How long PID 1 searches for files by default."""

_STOP_PATIENCE_S = 1.0
_COLLECT_MEMORY_BYTES = 128 << 20


class Owner(Protocol):
    """The launcher, as a sandbox needs it. null: a descriptor of /dev/null, open for writing. Every call returns at once.

    owns: whether the launcher that made the sandbox still runs; without it the sandbox is dying. kill: every process; the meters
    can still be read. end: kill it and remove everything of it. defer: call back when requests under way have been served.
    """

    null: int
    watcher: Watcher

    def owns(self, number: int) -> bool: ...

    def kill(self, number: int) -> None: ...

    def end(self, number: int) -> None: ...

    def defer(self, work: Callable[[], None]) -> None: ...


class Template:
    """What programs of one spec are restored from: a sealed, executable memfd, closed with the last reference to it."""

    def __init__(self, descriptor: int, made_at: float) -> None:
        self.descriptor = descriptor
        self.bytes = os.fstat(descriptor).st_size
        self.made_at = made_at
        self.runs = 0
        self.failed = False
        """Whether a program that was restored from it ended before it could continue."""

    def __del__(self) -> None:
        os.close(self.descriptor)


class Sandbox:
    """One isolated process tree, ready for its only command.

    Life cycle: `events` or `run` once, `collect` after it if wanted, `close` always. Other methods act on the running program.
    """

    def __init__(self, owner: Owner, number: int, pid: int, link: socket.socket, streams: Sequence[int], meter: Meter) -> None:
        """link: non-blocking. streams: stdin, stdout, stderr. All of them become ours."""
        self.number = number
        self.pid = pid
        self.was_prestarted: bool | None = None
        """Whether the command went to a prestarted program; None until PID 1 has reported the start."""
        self.template: Template | None = None
        """The template that the prestarted program was restored from."""
        self.on_close: Callable[[], None] = lambda: None
        """Called once, when the sandbox is closed."""
        for descriptor in streams:
            os.set_blocking(descriptor, False)
        stdin, stdout, stderr = streams
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = loop.create_future()
        """Done once the program has ended or is being killed; its last output may be left to read."""
        self._owner = owner
        self._link = Link(owner.watcher, link)
        self._input = InputWriter(loop, stdin)
        self._output = OutputReader(owner.watcher, owner.null, stdout, stderr)
        self._meter = meter
        self._usage = Usage(loop, owner.watcher, meter)
        self._command = _NO_COMMAND
        self._changed: asyncio.Future[None] | None = None
        """What the run waits for: the state of the sandbox changes. A future costs less than an `asyncio.Event`."""
        self._has_started = False
        self._killed_by = ""
        self._exit_report: Exited | None = None
        self._failure: SandboxFailure | CommandRefused | None = None
        self._closed = False

    @property
    def is_dead(self) -> bool:
        """Whether an idle sandbox has ended meanwhile, or is about to."""
        return not self._owner.owns(self.number) or self._link.is_dead

    def memory_bytes(self) -> int:
        """Return the peak memory use so far; 0 without a cgroup."""
        return self._meter.memory_peak_bytes() if self._meter else 0

    async def events(self, command: Command) -> AsyncGenerator[Event]:
        """Run the command: yield `Started`, then its output as it arrives, then how it ended.

        Backpressure: a slow consumer blocks the program. Closing or cancelling the generator kills the program.
        Raises: CommandRefused when it cannot be started as requested, SandboxFailure when the sandbox itself breaks.
        """
        self._start(command)
        try:
            while not self._has_started:
                await self._change()
            yield Started(self.was_prestarted is True)
            self._input.feed(command.stdin, then_end=not command.interactive)
            while True:
                while output := self._output.take():
                    yield output
                if self._is_over:
                    break
                await self._change()
            yield self._usage.exit(self._exit_report, self._killed_by, self._output.truncated)
        except (asyncio.CancelledError, GeneratorExit):
            self.kill("cancelled")
            raise
        except OSError as error:  # the meters are gone: the launcher removed the sandbox, so its result is unknown
            raise SandboxFailure("run", error.errno or 0, "the sandbox was removed while it ran", KILLED_HINT) from None
        finally:
            self._input.close()
            self._usage.stop()

    async def run(self, command: Command) -> tuple[Exit, bytes, bytes]:
        """Run the command to its end. Returns how it ended, stdout and stderr. Raises: as `events`."""
        ended: Exit | None = None
        streams = {"stdout": bytearray(), "stderr": bytearray()}
        async with aclosing(self.events(command)) as events:
            async for event in events:
                if isinstance(event, Output):
                    streams[event.stream] += event.data
                elif isinstance(event, Exit):
                    ended = event
        assert ended is not None  # noqa: S101 - the last event
        return ended, bytes(streams["stdout"]), bytes(streams["stderr"])

    async def write_stdin(self, data: bytes) -> None:
        """Write to the program's stdin; waits while the program does not read. Ignored once stdin is closed."""
        await self._input.write(memoryview(data))

    def close_stdin(self) -> None:
        """End the program's input: close the pipe, or send the terminal's end-of-file character."""
        self._input.end()

    def signal(self, number: int) -> None:
        """Send a signal to the program's process group."""
        self._link.signal(number)

    def resize(self, rows: int, columns: int) -> None:
        """Set the size of the terminal, if there is one."""
        self._input.resize(rows, columns)

    def kill(self, why: str) -> None:
        """Kill the whole tree. why: goes to `Exit.killed_by`; the first one counts."""
        if self.ended.done() or self._is_over or self._closed:
            return
        self._killed_by = why
        wake(self.ended)
        # Without a cgroup only PID 1 knows what was used, and only PID 1 can hand files back.
        asks_first = not self._meter or (self._command.keep_files and why != "cancelled")
        if self._has_started and asks_first and self._link.stop():
            self._usage.call_later(_STOP_PATIENCE_S, partial(self._owner.kill, self.number))
        else:
            self._owner.kill(self.number)
        self._usage.call_later(KILL_PATIENCE_S, self._give_up)

    async def collect(
        self, patterns: Sequence[str], max_bytes: int, max_files: int, budget_ms: float = COLLECT_BUDGET_MS
    ) -> Collected:
        """Take regular files out of the working directory after the run. Returns a pack, and what was left out and why.

        budget_ms: for the search. The caller closes the pack's descriptor. Raises: SandboxFailure.
        """
        if self._exit_report is None:
            raise SandboxFailure("collect", detail="the program was killed with its sandbox")
        try:
            if self._meter and self._command.memory_bytes:
                # The program's files may use up its memory limit. Only PID 1 is left to use more.
                self._meter.limit(self._command.memory_bytes + _COLLECT_MEMORY_BYTES, self._command.processes)
            readable = self._link.collect(patterns, max_bytes, max_files, budget_ms)
        except (OSError, ValueError) as error:
            raise SandboxFailure("collect", getattr(error, "errno", 0) or 0, str(error)) from None
        return await PackReader(readable, max_bytes, max_files, budget_ms).read()

    def close(self) -> None:
        """Release everything; what still runs is killed. Returns at once, `LauncherProcess.ended` waits."""
        if self._closed:
            return
        self._closed = True
        self.on_close()
        self._usage.stop()
        self._wake()
        if self._exit_report is None:
            self._release()
        else:
            self._owner.defer(self._release)  # the program has ended: tearing down its sandbox must not delay its result

    def _release(self) -> None:
        self._owner.end(self.number)
        self._input.close()
        self._output.close()
        self._link.close()
        self._meter.close()

    def _start(self, command: Command) -> None:
        """Send the command and read what comes back. Raises: CommandRefused, SandboxFailure."""
        self._command = command
        try:
            if self._meter:
                self._meter.limit(command.memory_bytes, command.processes)
            self._link.start(command)
        except OSError as error:
            # A limit below what is in use: version 1 of cgroups refuses it, version 2 kills the processes.
            if command.memory_bytes and self._meter and (error.errno == errno.EBUSY or self._meter.memory_kills()):
                raise CommandRefused("memory", error.errno or 0, "more memory is in use before the program starts") from None
            raise SandboxFailure("start", error.errno or 0, str(error)) from None
        self._link.listen(self._receive)
        self._output.start(command, self._wake, self._on_stream_end, self.kill)

    async def _change(self) -> None:
        """Wait for the next change of the run. Raises: the failure that ended it, CancelledError once the sandbox is closed."""
        if self._failure is not None:
            raise self._failure
        if self._closed:
            raise asyncio.CancelledError
        self._changed = asyncio.get_running_loop().create_future()
        try:
            await self._changed
        finally:
            self._changed = None

    def _wake(self) -> None:
        if self._changed is not None:
            wake(self._changed)

    def _receive(self) -> None:
        """Handle what PID 1 sends."""
        try:
            match self._link.receive():
                case Running() as running:
                    self._on_start(running)
                case Exited() as report:
                    self._exit_report = report
                    wake(self.ended)
                    self._usage.end()
                    self._usage.call_later(KILL_PATIENCE_S, self._end_stragglers)
                case CommandRefused() as refusal:
                    self._fail(refusal)
                case Hangup():
                    self._link.hang_up()
                    self._usage.end()
                    if not self._has_started and self._killed_by:  # before it was reported
                        self._has_started = True
                        self._wake()
                    elif not self._has_started and self._meter and self._meter.memory_kills():
                        self._fail(CommandRefused("memory", errno.ENOMEM, "not enough memory for the sandbox itself"))
                    elif not self._has_started:
                        raise SandboxFailure("start", detail="the sandbox ended before the program started")
                case None:
                    pass
        except SandboxFailure as failure:
            self._fail(failure)
            self._link.hang_up()
            self._usage.end()
            self._owner.kill(self.number)
        if self._is_over:
            self._wake()

    def _on_start(self, running: Running) -> None:
        self.was_prestarted = running.prestarted
        if self._command.terminal is not None:
            if running.terminal < 0:
                raise SandboxFailure("terminal", errno.EMFILE, "no descriptor arrived", hint="raise `ulimit -n` or lower `slots`")
            os.set_blocking(running.terminal, False)
            self._output.use_terminal(running.terminal)
            self._input.use_terminal(running.terminal)
        elif running.terminal >= 0:
            os.close(running.terminal)
        self._usage.start(self._command, self.kill)
        self._has_started = True
        self._wake()

    @property
    def _is_over(self) -> bool:
        """Whether the program has run, has ended, and has closed its streams, without a failure."""
        has_ended = self._exit_report is not None or not self._link.is_open
        return has_ended and self._has_started and not self._output.is_open and not self._closed and self._failure is None

    def _on_stream_end(self) -> None:
        if self._command.terminal is not None and self._has_started:
            self._input.close()
        if self._is_over:
            self._wake()

    def _fail(self, failure: SandboxFailure | CommandRefused) -> None:
        """End the run with a failure, unless it is over."""
        if self._failure is None and not self._is_over:
            self._failure = failure
            wake(self.ended)
            self._wake()

    def _give_up(self) -> None:
        if self._link.is_open:  # else everything is dead and only a slow reader of the output is left
            self._fail(SandboxFailure("kill", errno.ETIMEDOUT, "the processes did not end after SIGKILL"))
            self._owner.kill(self.number)

    def _end_stragglers(self) -> None:
        """Kill a PID 1 that reported the exit and still holds the program's streams open."""
        if self._output.is_paused:  # the reader is slow: check again later
            self._usage.call_later(KILL_PATIENCE_S, self._end_stragglers)
        elif self._output.is_open:
            self._owner.kill(self.number)


_NO_COMMAND = Command(argv=(), env={})
