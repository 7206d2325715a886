"""One sandbox as the server holds it.

A request never waits for the launcher when a sandbox is ready: the command goes straight to its PID 1, output comes straight from
the program's pipes, and the meters are read through file descriptors.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from typing import NamedTuple, Protocol

from firebox.sandbox.instance.clocks import Clocks
from firebox.sandbox.instance.input_writer import InputWriter
from firebox.sandbox.instance.link import Link, Reply, Started
from firebox.sandbox.instance.output_reader import READ_BYTES, OutputReader, OutputSink, StreamName
from firebox.sandbox.instance.watcher import Watcher
from firebox.sandbox.plan.cgroups import Meter
from firebox.sandbox.protocol.messages import Exceeded, Exited, Kind
from firebox.sandbox.protocol.pack import Collected, PackReader
from firebox.sandbox.spec import Command, CommandRefused, Exit, SandboxFailure
from firebox.sandbox.template import Template

KILL_PATIENCE_S = 15.0
"""After a kill the kernel should need milliseconds. After this time the sandbox is reported as failed."""
COLLECT_BUDGET_MS = 10_000.0
"""How long PID 1 searches for files by default."""

_STOP_PATIENCE_S = 1.0
_COLLECT_MEMORY_BYTES = 128 << 20
_HELD_BYTES = 4 * READ_BYTES
"""Output that `events` holds before the program has to wait."""

_KILLED = Exited(Kind.EXITED, -signal.SIGKILL, Exceeded.NOTHING, 0, 0, 0)
"""Stands for the report of a sandbox that was killed as a whole."""
_KILLED_HINT = "was the launcher killed?"
_EXCEEDED = {Exceeded.NOTHING: "", Exceeded.MEMORY: "memory", Exceeded.CPU_TIME: "cpu_time"}


class Output(NamedTuple):
    """A piece of output, in the order of its stream."""

    stream: StreamName
    data: bytes


class Owner(Protocol):
    """The launcher, as a sandbox needs it. null: a descriptor of /dev/null, open for writing."""

    null: int
    watcher: Watcher

    def owns(self, number: int) -> bool:
        """Return whether the launcher that made the sandbox still runs; without it the sandbox is dying."""
        ...

    def kill(self, number: int) -> None:
        """Have every process of the sandbox killed; its meters can still be read. Returns at once."""
        ...

    def end(self, number: int) -> None:
        """Have the sandbox killed and everything of it removed. Returns at once."""
        ...

    def defer(self, work: Callable[[], None]) -> None:
        """Call back when requests under way have been served."""
        ...


class Sandbox:
    """One isolated process tree, ready for its only command.

    Life cycle: `events` or `run` once, `collect` after it if wanted, `close` always. Other methods act on the running program.
    """

    def __init__(
        self,
        owner: Owner,
        number: int,
        pid: int,
        link: socket.socket,
        streams: Sequence[int],
        meter: Meter,
    ) -> None:
        """link: non-blocking. streams: stdin, stdout, stderr. All of them become ours."""
        self.number = number
        self.pid = pid
        self.was_prestarted: bool | None = None
        """Whether the command went to a prestarted program; None until PID 1 has reported the start."""
        self.template: Template | None = None
        """The template that the prestarted program was restored from."""
        self.on_close: Callable[[], None] = _do_nothing
        """Called once, when the sandbox is closed."""
        for descriptor in streams:
            os.set_blocking(descriptor, False)
        stdin, stdout, stderr = streams
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._watcher = owner.watcher
        self._link = Link(link)
        self._input = InputWriter(self._loop, stdin)
        self._output = OutputReader(owner.watcher, owner.null, stdout, stderr)
        self._meter = meter
        self._memory_event = -1
        self._clocks = Clocks(self._loop, meter)
        self._command: Command | None = None
        self._has_started = False
        self._is_over = False
        self._failure: SandboxFailure | CommandRefused | None = None
        self._changed: asyncio.Future[None] | None = None
        """What the run waits for: its state or, with `events`, its output has changed."""
        self._exit_message: Exited | None = None
        self._killed_by = ""
        self._closed = False

    @property
    def is_dead(self) -> bool:
        """Whether an idle sandbox has ended meanwhile, or is about to."""
        return not self._owner.owns(self.number) or self._link.is_dead

    def memory_bytes(self) -> int:
        """Return the peak memory use so far; 0 without a cgroup."""
        return self._meter.memory_peak_bytes() if self._meter else 0

    async def events(self, command: Command) -> AsyncGenerator[Started | Output | Exit]:
        """Run the command: yield `Started`, then its output as it arrives, then how it ended.

        Backpressure: a slow consumer blocks the program. Closing or cancelling the generator kills the program. Raises: as `run`.
        """
        held: deque[Output] = deque()
        held_bytes = 0

        def hold(stream: StreamName, data: bytes) -> None:
            nonlocal held_bytes
            held.append(Output(stream, data))
            held_bytes += len(data)
            if held_bytes >= _HELD_BYTES:
                self.pause()
            self._wake()

        self._start(command, hold)
        feeding: asyncio.Task[None] | None = None
        try:
            while not self._has_started:
                await self._change()
            yield Started(self.was_prestarted is True)
            feeding = self._feed_first(command)
            while held or not self._is_over:
                while held:
                    output = held.popleft()
                    held_bytes -= len(output.data)
                    yield output
                self.resume()
                if not self._is_over:
                    await self._change()
            yield self._exit()
        except (asyncio.CancelledError, GeneratorExit):
            self.kill("cancelled")
            raise
        except OSError as error:
            raise _taken_away(error) from None
        finally:
            self._end_run(feeding)

    async def run(self, command: Command, output: OutputSink, started: Callable[[], None] = lambda: None) -> Exit:
        """Run the command to its end and return how it ended.

        output: called with the stream's name and each piece as it arrives. started: called when the program runs.
        Cancelling it kills the program. Raises: CommandRefused when it cannot be started as requested, SandboxFailure when
        the sandbox itself breaks.
        """
        self._start(command, output)
        feeding: asyncio.Task[None] | None = None
        try:
            while not self._has_started:
                await self._change()
            started()
            feeding = self._feed_first(command)
            while not self._is_over:
                await self._change()
            return self._exit()
        except asyncio.CancelledError:
            self.kill("cancelled")
            raise
        except OSError as error:
            raise _taken_away(error) from None
        finally:
            self._end_run(feeding)

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

    def pause(self) -> None:
        """Stop reading output: the program blocks when its pipe is full. Output of a dead program is always read."""
        if not self._killed_by and self._exit_message is None:
            self._output.pause()

    def resume(self) -> None:
        self._output.resume()

    def kill(self, why: str) -> None:
        """Kill the whole tree. why: goes to `Exit.killed_by`; the first one counts."""
        if self._killed_by or self._is_over or self._failure is not None or self._exit_message is not None or self._closed:
            return
        self._killed_by = why
        # Without a cgroup only PID 1 knows what was used, and only PID 1 can hand files back.
        asks_first = not self._meter or (self._command is not None and self._command.keep_files and why != "cancelled")
        if self._has_started and asks_first and self._link.stop():
            self._clocks.call_later(_STOP_PATIENCE_S, partial(self._owner.kill, self.number))
        else:
            self._owner.kill(self.number)
        self.resume()
        self._clocks.call_later(KILL_PATIENCE_S, self._give_up)

    async def collect(
        self, patterns: Sequence[str], max_bytes: int, max_files: int, budget_ms: float = COLLECT_BUDGET_MS
    ) -> Collected:
        """Take regular files out of the working directory after the run. Returns a pack, and what was left out and why.

        budget_ms: for the search. The caller closes the pack's descriptor. Raises: SandboxFailure.
        """
        if self._exit_message is None:
            raise SandboxFailure("collect", detail="the program was killed with its sandbox")
        command = self._command
        readable, writable = os.pipe()
        try:
            if self._meter and command is not None and command.memory_bytes:
                # The program's files may use up its memory limit. Only PID 1 is left to use more.
                self._meter.limit(command.memory_bytes + _COLLECT_MEMORY_BYTES, command.processes)
            self._link.collect(patterns, max_bytes, max_files, budget_ms, writable)
        except (OSError, ValueError) as error:
            os.close(readable)
            raise SandboxFailure("collect", getattr(error, "errno", 0) or 0, str(error)) from None
        finally:
            os.close(writable)
        return await PackReader(readable, max_bytes, max_files, budget_ms).read()

    def close(self) -> None:
        """Release everything; what still runs is killed. Returns at once, `LauncherProcess.ended` waits."""
        if self._closed:
            return
        self._closed = True
        self.on_close()
        self._stop_clocks()
        if self._changed is not None:
            self._changed.cancel()
        if self._exit_message is None:
            self._release()
        else:
            self._owner.defer(self._release)  # the program has ended: tearing down its sandbox must not delay its result

    def _release(self) -> None:
        self._owner.end(self.number)
        self._input.close()
        self._output.close()
        self._watcher.remove(self._link.fileno())
        self._link.close()
        self._meter.close()

    def _start(self, command: Command, output: OutputSink) -> None:
        """Send the command and read what comes back. Raises: CommandRefused, SandboxFailure."""
        self._command = command
        try:
            if self._meter:
                self._meter.limit(command.memory_bytes, command.processes)
            self._link.start(command)
        except ValueError as error:
            raise CommandRefused("start", errno.EINVAL, str(error)) from None
        except OSError as error:
            if error.errno == errno.E2BIG:
                raise CommandRefused("start", errno.E2BIG, os.strerror(errno.E2BIG)) from None
            # A limit below what is in use: version 1 of cgroups refuses it, version 2 kills the processes.
            if command.memory_bytes and self._meter and (error.errno == errno.EBUSY or self._meter.memory_kills()):
                raise CommandRefused("memory", error.errno or 0, "more memory is in use before the program starts") from None
            raise SandboxFailure("start", error.errno or 0, str(error)) from None
        self._watcher.add(self._link.fileno(), self._receive)
        overflowed = partial(self.kill, "output") if command.kill_on_output else _do_nothing
        self._output.start(command.output_bytes, output, self._on_stream_end, overflowed)

    def _feed_first(self, command: Command) -> asyncio.Task[None] | None:
        """Write the command's own stdin. Returns a task for what does not fit at once."""
        rest = self._input.offer(memoryview(command.stdin))
        if rest:
            return self._loop.create_task(self._feed(rest, close=not command.interactive))
        if not command.interactive:
            self._input.end()
        return None

    async def _feed(self, data: memoryview, *, close: bool) -> None:
        await self._input.write(data)
        if close:
            self._input.end()

    def _end_run(self, feeding: asyncio.Task[None] | None) -> None:
        if feeding is not None:
            feeding.cancel()
        self._stop_clocks()

    async def _change(self) -> None:
        """Wait for the next change of the run. Raises: the failure that ended it, CancelledError once the sandbox is closed."""
        if self._failure is not None:
            raise self._failure
        if self._closed:
            raise asyncio.CancelledError
        self._changed = self._loop.create_future()
        try:
            await self._changed
        finally:
            self._changed = None

    def _wake(self) -> None:
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)

    def _receive(self) -> None:
        """Handle what PID 1 sends."""
        try:
            reply = self._link.receive()
            if reply is not None:
                self._handle(reply)
        except SandboxFailure as failure:
            self._hang_up()
            self._fail(failure)
            self._owner.kill(self.number)

    def _handle(self, reply: Reply) -> None:
        if isinstance(reply, Started):
            self._on_start(reply)
        elif isinstance(reply, Exited):
            self._exit_message = reply
            self._clocks.end()
            self._clocks.call_later(KILL_PATIENCE_S, self._end_stragglers)
            self.resume()
            self._finish_if_complete()
        elif isinstance(reply, CommandRefused):
            self._fail(reply)
        else:
            self._on_hangup()

    def _on_start(self, reply: Started) -> None:
        command = self._command
        assert command is not None  # noqa: S101 - set by _start
        self.was_prestarted = reply.prestarted
        if command.terminal is not None:
            if reply.terminal < 0:
                raise SandboxFailure("terminal", errno.EMFILE, "no descriptor arrived", hint="raise `ulimit -n` or lower `slots`")
            os.set_blocking(reply.terminal, False)
            self._output.use_terminal(reply.terminal)
            self._input.use_terminal(reply.terminal)
        elif reply.terminal >= 0:
            os.close(reply.terminal)
        self._clocks.start(command.wall_ms, command.cpu_ms, self.kill)
        self._memory_event = self._meter.memory_event()
        if self._memory_event >= 0:
            self._watcher.add(self._memory_event, partial(self.kill, "memory"))
        self._has_started = True
        self._wake()

    def _on_hangup(self) -> None:
        """Handle the end of PID 1, which may have been killed by the kernel or by us."""
        self._hang_up()
        if not self._has_started:
            if self._killed_by:  # before its start was reported
                self._has_started = True
                self._wake()
            elif self._meter and self._meter.memory_kills():
                self._fail(CommandRefused("memory", errno.ENOMEM, "not enough memory for the sandbox itself"))
            else:
                self._fail(SandboxFailure("start", detail="the sandbox ended before the program started"))
                self._owner.kill(self.number)
        self._finish_if_complete()

    def _hang_up(self) -> None:
        """Stop listening: PID 1 is gone, or what it sends is malformed."""
        self._link.is_open = False
        self._watcher.remove(self._link.fileno())
        self._clocks.end()

    def _on_stream_end(self) -> None:
        if self._command is not None and self._command.terminal is not None and self._has_started:
            self._input.close()
        self._finish_if_complete()

    def _finish_if_complete(self) -> None:
        if (self._exit_message is not None or not self._link.is_open) and self._output.is_done:
            self._is_over = True
            self._wake()

    def _fail(self, failure: SandboxFailure | CommandRefused) -> None:
        """End the run with a failure, unless it is over."""
        if self._failure is None and not self._is_over:
            self._failure = failure
            self._wake()

    def _give_up(self) -> None:
        if self._link.is_open:  # else everything is dead and only a slow reader of the output is left
            self._fail(SandboxFailure("kill", errno.ETIMEDOUT, "the processes did not end after SIGKILL"))
            self._owner.kill(self.number)

    def _end_stragglers(self) -> None:
        """Kill a PID 1 that reported the exit and still holds the program's streams open."""
        if self._output.is_done:
            return
        if self._output.is_paused:  # the reader is slow: check again later
            self._clocks.call_later(KILL_PATIENCE_S, self._end_stragglers)
        else:
            self._owner.kill(self.number)

    def _exit(self) -> Exit:
        message, command = self._exit_message or _KILLED, self._command
        assert command is not None  # noqa: S101 - set by _start
        code = message.status
        memory_kills = self._meter.memory_kills() if self._meter else 0
        # The cgroup does not distinguish the CPU time of a program until its start is reported from ours.
        cpu_ms = max(self._clocks.cpu_ms(), message.cpu_us / 1000)
        peak = self._meter.memory_peak_bytes() if self._meter else message.memory_peak_bytes
        killed_by = self._killed_by or _EXCEEDED[Exceeded(message.exceeded)]
        if not killed_by and memory_kills and code != 0:
            killed_by = "memory"
        if not killed_by and code in (-signal.SIGXCPU, -signal.SIGKILL) and command.cpu_ms and cpu_ms >= command.cpu_ms:
            killed_by = "cpu_time"  # the backstop, RLIMIT_CPU
        if self._exit_message is None and not killed_by:
            raise SandboxFailure("run", detail="the sandbox ended without a report", hint=_KILLED_HINT)
        return Exit(
            status=code if code >= 0 else None,
            signal=-code if code < 0 else None,
            killed_by=killed_by,
            wall_ms=self._clocks.wall_ms,
            cpu_ms=cpu_ms,
            memory_peak_bytes=peak,
            memory_limit_hit=memory_kills > 0 or killed_by == "memory",
            stdout_truncated=self._output.truncated["stdout"],
            stderr_truncated=self._output.truncated["stderr"],
        )

    def _stop_clocks(self) -> None:
        if self._memory_event >= 0:
            self._watcher.remove(self._memory_event)
            self._memory_event = -1
        self._clocks.stop()


def _taken_away(error: OSError) -> SandboxFailure:
    """Return the failure of a sandbox whose meters are gone: the launcher removed it, so its result is unknown."""
    return SandboxFailure("run", error.errno or 0, "the sandbox was removed while it ran", _KILLED_HINT)


def _do_nothing() -> None:
    return
