"""One sandbox as the server holds it.

A request never waits for the launcher when a sandbox is ready: the command goes straight to its PID 1, output comes straight
from the program's pipes, the meters are read through descriptors. Clocks and output caps are kept here.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import signal
import socket
import struct
import termios
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, Protocol

from firebox.sandbox.instance.watcher import Watcher
from firebox.sandbox.plan.cgroups import Meter
from firebox.sandbox.protocol import messages
from firebox.sandbox.protocol.messages import Exceeded, Exited, Kind, Phase, StartFlag
from firebox.sandbox.protocol.pack import Collected, PackReader
from firebox.sandbox.spec import Command, CommandRefused, Exit, SandboxFailure
from firebox.sandbox.template import Template

READ_BYTES = 64 << 10
KILL_PATIENCE_S = 15.0
"""After a kill the kernel should need milliseconds; past this the sandbox is given up and reported."""

_CPU_CHECK_AT_LEAST_MS = 5.0
_PROCESSORS = os.cpu_count() or 1
_STOP_PATIENCE_S = 1.0
_DISCARD_BYTES = 1 << 20
_COLLECT_MEMORY_BYTES = 128 << 20
COLLECT_BUDGET_MS = 10_000.0
"""How long PID 1 looks for files when nobody says how long it may."""

_KILLED = Exited(Kind.EXITED, -signal.SIGKILL, Exceeded.NOTHING, 0, 0, 0)
"""Instead of a report, where the whole sandbox was killed."""
_KILLED_HINT = "was the launcher killed?"
_EXCEEDED = {Exceeded.NOTHING: "", Exceeded.MEMORY: "memory", Exceeded.CPU_TIME: "cpu_time"}
_REFUSED_STEPS: dict[int, str] = {Phase.FILES: "files", Phase.TERMINAL: "terminal"}

StreamName = Literal["stdout", "stderr"]
OutputSink = Callable[[StreamName, bytes], None]


class Owner(Protocol):
    """What a sandbox needs of whoever made it. null: a descriptor of /dev/null, open for writing."""

    null: int
    watcher: Watcher

    def owns(self, number: int) -> bool:
        """Tell whether the sandbox is one of those that are looked after; others are dying."""
        ...

    def kill(self, number: int) -> None:
        """Have every process of the sandbox killed; its meters can still be read. Returns at once."""
        ...

    def end(self, number: int) -> None:
        """Have the sandbox killed and everything of it removed. Returns at once."""
        ...

    def later(self, work: Callable[[], None]) -> None:
        """Do what nobody waits for, once those who wait have been served."""
        ...


class Sandbox:
    """One isolated process tree, ready for its only command.

    Life: `run` once, `collect` after it at will, `close` always. Everything else is for while it runs.
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
        self.was_started_ahead: bool | None = None
        """Whether the program went on that had been started before its command came; None until PID 1 has said so."""
        self.template: Template | None = None
        """From which that program was restored."""
        self.on_close: Callable[[], None] = _do_nothing
        """Called once, when it is closed."""
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._watcher = owner.watcher
        self._link = link
        self._stdin, stdout, stderr = streams
        self._streams: dict[StreamName, int] = {"stdout": stdout, "stderr": stderr}
        for descriptor in streams:
            os.set_blocking(descriptor, False)
        self._meter = meter
        self._command: Command | None = None
        self._output: OutputSink = _ignore
        self._counts = {"stdout": 0, "stderr": 0}
        self._truncated = {"stdout": False, "stderr": False}
        self._paused = False
        self._started: asyncio.Future[None] = self._loop.create_future()
        self._finished: asyncio.Future[None] = self._loop.create_future()
        self._exit_message: Exited | None = None
        self._link_open = True
        self._killed_by = ""
        self._terminal = -1
        self._timers: list[asyncio.TimerHandle] = []
        self._cpu_timer: asyncio.TimerHandle | None = None
        self._started_at = 0.0
        self._cpu_before_ms = 0.0
        self._ended_at = 0.0
        self._stdin_room: asyncio.Future[None] | None = None
        self._closed = False

    @property
    def is_dead(self) -> bool:
        """Tell whether a sandbox that is kept ready has ended meanwhile, or is about to."""
        if not self._owner.owns(self.number):
            return True
        try:
            return not self._link.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    @property
    def _input(self) -> int:
        """What is written to: the terminal, where there is one, else the pipe, -1 once that is closed."""
        return self._terminal if self._terminal >= 0 else self._stdin

    def memory_bytes(self) -> int:
        """Return the most memory that it has held so far; 0 where no control group counts."""
        return self._meter.memory_peak_bytes() if self._meter else 0

    async def run(self, command: Command, output: OutputSink, started: Callable[[], None] = lambda: None) -> Exit:
        """Run the command to its end and return what it left.

        output: called with the stream's name and each piece as it arrives. started: called when the program runs.
        Cancelling it kills the program. Raises: CommandRefused when it cannot be started as asked, SandboxFailure when
        the sandbox itself breaks.
        """
        self._command = command
        self._output = output
        self._start(command)
        try:
            await self._started
            started()
            rest = self._offer(memoryview(command.stdin))
            if rest:
                feeding = self._loop.create_task(self._feed(rest, close=not command.interactive))
                self._finished.add_done_callback(lambda _finished: feeding.cancel())
            elif not command.interactive:
                self.close_stdin()
            await self._finished
            return self._exit()
        except asyncio.CancelledError:
            self.kill("cancelled")
            raise
        except OSError as error:
            # The meters are gone: whoever made the sandbox has removed it, so it cannot vouch for how it ended.
            raise SandboxFailure("run", error.errno or 0, "the sandbox was taken away while it ran", _KILLED_HINT) from None
        finally:
            self._stop_clocks()

    async def write_stdin(self, data: bytes) -> None:
        """Write to the program's stdin; waits while it does not read. Ignored once it is closed."""
        await self._feed(memoryview(data), close=False)

    def close_stdin(self) -> None:
        """End the program's input: close the pipe, or send the terminal's end-of-file character."""
        if self._terminal >= 0:
            try:
                os.write(self._terminal, b"\x04")
            except OSError:
                return
        self._close_stdin_pipe()

    def signal(self, number: int) -> None:
        """Send a signal to the program's process group."""
        if self._exit_message is None and self._link_open:
            try:
                messages.send(self._link, messages.pack(messages.Signal(Kind.SIGNAL, number)))
            except OSError:
                return  # it has just ended, or a flood of signals: what does not fit is lost, as signals are

    def resize(self, rows: int, columns: int) -> None:
        if self._terminal >= 0:
            fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def pause(self) -> None:
        """Stop reading output: the program blocks when its pipe is full. What is left of a dead one is always read."""
        if not self._paused and not self._killed_by and self._exit_message is None:
            self._paused = True
            for descriptor in self._streams.values():
                self._watcher.remove(descriptor)

    def resume(self) -> None:
        if self._paused:
            self._paused = False
            self._listen()

    def kill(self, why: str) -> None:
        """Kill the whole tree. why: goes to `Exit.killed_by`; the first one counts."""
        if self._killed_by or self._finished.done() or self._exit_message is not None:
            return
        self._killed_by = why
        asks_first = not self._meter or (self._command is not None and self._command.keep_files and why != "cancelled")
        if self._started.done() and asks_first and self._ask_to_stop():
            self._timers.append(self._loop.call_later(_STOP_PATIENCE_S, self._owner.kill, self.number))
        else:
            self._owner.kill(self.number)
        self.resume()
        self._timers.append(self._loop.call_later(KILL_PATIENCE_S, self._give_up))

    def _ask_to_stop(self) -> bool:
        """Have PID 1 end the program. False when it cannot hear.

        Where there are no groups only it knows what was used, and where files are wanted only it can hand them back.
        """
        try:
            messages.send(self._link, messages.pack(messages.Stop(Kind.STOP, 0)))
        except OSError:
            return False
        return True

    async def collect(
        self, patterns: Sequence[str], max_bytes: int, max_files: int, budget_ms: float = COLLECT_BUDGET_MS
    ) -> Collected:
        """Take regular files out of the working directory after the run. Returns them as a pack, and what was left out and why.

        budget_ms: how long to look for files. The caller closes the pack's descriptor. Raises: SandboxFailure.
        """
        if self._exit_message is None:
            raise SandboxFailure("collect", detail="the program was killed with its sandbox")
        command = self._command
        readable, writable = os.pipe()
        try:
            if self._meter and command is not None and command.memory_bytes:
                # What the program wrote is memory too, and may be all that it was given; only our PID 1 is left to use more.
                self._meter.limit(command.memory_bytes + _COLLECT_MEMORY_BYTES, command.processes)
            text = messages.Text(patterns)
            head = messages.Collect(Kind.COLLECT, len(patterns), max_bytes, max_files, int(budget_ms), text.bytes)
            messages.send(self._link, messages.pack(head) + text.encoded(), (writable,))
        except (OSError, ValueError) as error:
            os.close(readable)
            raise SandboxFailure("collect", getattr(error, "errno", 0) or 0, str(error)) from None
        finally:
            os.close(writable)
        reader = PackReader(readable, max_bytes, max_files, budget_ms)
        return await reader.read()

    def close(self) -> None:
        """Let go of everything; what still runs is killed. Returns at once, `LauncherProcess.ended` waits."""
        if self._closed:
            return
        self._closed = True
        self.on_close()
        self._stop_clocks()
        if not self._started.done():
            self._started.cancel()
        if not self._finished.done():
            self._finished.cancel()
        if self._exit_message is None:
            self._clear_away()
        else:
            self._owner.later(self._clear_away)  # the program has ended: taking its sandbox apart must not delay its result

    def _clear_away(self) -> None:
        self._owner.end(self.number)
        for descriptor in self._streams.values():
            self._watcher.remove(descriptor)
            os.close(descriptor)
        self._streams.clear()
        self._close_stdin_pipe()
        self._watcher.remove(self._link.fileno())
        self._link.close()
        self._meter.close()

    def _start(self, command: Command) -> None:
        # Contents travel by descriptor: the pack of an earlier stage, and one memfd with the job's own files.
        descriptors: list[int] = []
        own = -1
        try:
            if self._meter:
                self._meter.limit(command.memory_bytes, command.processes)
            if command.packed is not None:
                descriptors.append(command.packed.descriptor)
            if command.files:
                own = os.memfd_create("files", os.MFD_CLOEXEC)
                for file in command.files:
                    messages.write_all(own, file.content)
                descriptors.append(own)
            messages.send(self._link, _start_message(command), descriptors)
        except ValueError as error:
            raise CommandRefused("start", errno.EINVAL, str(error)) from None
        except OSError as error:
            if error.errno == errno.E2BIG:
                raise CommandRefused("start", errno.E2BIG, os.strerror(errno.E2BIG)) from None
            # Less than is in use already: version 1 of control groups refuses it, version 2 kills what is there.
            if command.memory_bytes and self._meter and (error.errno == errno.EBUSY or self._meter.memory_kills()):
                raise CommandRefused("memory", error.errno or 0, "more memory is in use before the program starts") from None
            raise SandboxFailure("start", error.errno or 0, str(error)) from None
        finally:
            if own >= 0:
                os.close(own)
        self._watcher.add(self._link.fileno(), self._hear)
        self._listen()

    def _listen(self) -> None:
        for name, descriptor in self._streams.items():
            self._watcher.add(descriptor, partial(self._read, name))

    def _hear(self) -> None:
        """Take what PID 1 says. It shares the sandbox with hostile code: nothing is believed that has the wrong shape."""
        try:
            data, descriptors = messages.receive(self._link)
        except BlockingIOError:
            return
        try:
            if data:
                self._take(data, descriptors)
            else:
                self._take_end()
        except (SandboxFailure, ValueError) as error:
            self._hang_up()
            self._break(error if isinstance(error, SandboxFailure) else SandboxFailure("message", detail=str(error)))
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _take(self, data: bytes, descriptors: list[int]) -> None:
        """Act on a message; takes what it keeps out of `descriptors`. Raises: SandboxFailure, ValueError."""
        kind = messages.kind_of(data)
        if kind == Kind.STARTED and not self._started.done():
            self.was_started_ahead = messages.unpack(messages.Started, data).prestarted == 1
            self._begin(descriptors)
        elif kind == Kind.EXITED and self._started.done() and self._exit_message is None:
            message = messages.unpack(Exited, data)
            _check_exit(message)
            self._ended_at = time.monotonic()
            self._exit_message = message
            self._timers.append(self._loop.call_later(KILL_PATIENCE_S, self._end_stragglers))
            self.resume()
            self._finish_when_complete()
        elif kind == Kind.REFUSED and not self._started.done():
            refused, about = messages.unpack_with_text(messages.Refused, data)
            words = messages.error_text(refused.error)
            detail = f"{words}: {about}" if about else words
            step = _REFUSED_STEPS.get(refused.phase, "start")
            self._started.set_exception(CommandRefused(step, refused.error, detail))
        elif kind == Kind.FAILED and not self._started.done():
            failed, call = messages.unpack_with_text(messages.Failed, data)
            raise SandboxFailure("serve", failed.error, f"{messages.error_text(failed.error)}: {call}")
        else:
            raise SandboxFailure("message", detail="not expected now")

    def _take_end(self) -> None:
        """Act on the end of PID 1, which may have been killed by the kernel or by us."""
        self._hang_up()
        if not self._started.done():
            if self._killed_by:  # so early that its start was not reported
                self._started_at = self._ended_at
                self._started.set_result(None)
            elif self._meter and self._meter.memory_kills():
                self._started.set_exception(CommandRefused("memory", errno.ENOMEM, "the sandbox itself had not enough memory"))
            else:
                self._break(SandboxFailure("start", detail="the sandbox ended before the program started"))
        self._finish_when_complete()

    def _hang_up(self) -> None:
        """Listen no more: PID 1 is gone or talks nonsense."""
        self._link_open = False
        self._watcher.remove(self._link.fileno())
        self._ended_at = self._ended_at or time.monotonic()

    def _begin(self, descriptors: list[int]) -> None:
        assert self._command is not None  # noqa: S101 - set by run
        if self._command.terminal is not None:
            if not descriptors:
                raise SandboxFailure("terminal", errno.EMFILE, "no descriptor arrived", hint="raise `ulimit -n` or lower `slots`")
            self._use_terminal(descriptors.pop())
        self._cpu_before_ms = self._meter.cpu_ms() if self._meter else 0.0
        self._started_at = time.monotonic()  # not the loop's clock: uvloop rounds that to milliseconds
        self._timers.append(self._loop.call_later(self._command.wall_ms / 1000, self.kill, "wall_time"))
        if self._command.cpu_ms and self._meter:
            self._arm_cpu_clock(self._command.cpu_ms)
        if self._meter.memory_event() >= 0:
            self._watcher.add(self._meter.memory_event(), partial(self.kill, "memory"))
        self._started.set_result(None)

    def _use_terminal(self, master: int) -> None:
        """Read and write the terminal instead of the pipes."""
        os.set_blocking(master, False)
        for descriptor in self._streams.values():
            self._watcher.remove(descriptor)
            os.close(descriptor)
        self._close_stdin_pipe()
        self._streams = {"stdout": master}
        self._terminal = master
        self._listen()

    def _arm_cpu_clock(self, remaining_ms: float) -> None:
        """Look again when the limit could be reached at the earliest: all processors busy from now on."""
        pause_ms = max(remaining_ms / _PROCESSORS, _CPU_CHECK_AT_LEAST_MS)
        self._cpu_timer = self._loop.call_later(pause_ms / 1000, self._check_cpu)

    def _check_cpu(self) -> None:
        assert self._command is not None  # noqa: S101 - armed by _begin
        remaining_ms = self._command.cpu_ms - self._cpu_ms()
        if remaining_ms <= 0:
            self.kill("cpu_time")
        else:
            self._arm_cpu_clock(remaining_ms)

    def _cpu_ms(self) -> float:
        """Return what the program used; making the sandbox does not count."""
        return max(self._meter.cpu_ms() - self._cpu_before_ms, 0.0)

    def _read(self, name: StreamName) -> None:
        descriptor = self._streams[name]
        try:
            if self._truncated[name] and descriptor != self._terminal:
                # Nobody will see it, but the program may go on writing: let the kernel throw it away.
                if os.splice(descriptor, self._owner.null, _DISCARD_BYTES):
                    return
                data = b""
            else:
                data = os.read(descriptor, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:  # EIO: the last holder of the terminal is gone
            data = b""
        if not data:
            self._watcher.remove(descriptor)
            os.close(descriptor)
            del self._streams[name]
            if descriptor == self._terminal:
                self._terminal = -1
            self._finish_when_complete()
            return
        assert self._command is not None  # noqa: S101 - readers are set by run
        room = self._command.output_bytes - self._counts[name]
        self._counts[name] += len(data)
        if len(data) > room:
            if not self._truncated[name] and descriptor != self._terminal:
                fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _DISCARD_BYTES)
            self._truncated[name] = True
            data = data[: max(room, 0)]
            if self._command.kill_on_output:
                self.kill("output")
        if data:
            self._output(name, data)

    def _finish_when_complete(self) -> None:
        complete = (self._exit_message is not None or not self._link_open) and not self._streams
        if complete and not self._finished.done():
            self._finished.set_result(None)

    def _break(self, failure: SandboxFailure) -> None:
        for future in (self._started, self._finished):
            if not future.done():
                future.set_exception(failure)
                future.exception()  # seen: not every caller waits for both
        self._owner.kill(self.number)

    def _give_up(self) -> None:
        if self._link_open:  # else everything is dead and only a slow reader of the output is left
            self._break(SandboxFailure("kill", errno.ETIMEDOUT, "the processes did not end after SIGKILL"))

    def _end_stragglers(self) -> None:
        """End a PID 1 that reported the end and still holds the program's streams open."""
        if self._streams and self._paused:  # or somebody reads slowly: look again
            self._timers.append(self._loop.call_later(KILL_PATIENCE_S, self._end_stragglers))
        elif self._streams:
            self._owner.kill(self.number)

    def _exit(self) -> Exit:
        message, command = self._exit_message or _KILLED, self._command
        assert command is not None  # noqa: S101 - set by run
        code = message.status
        memory_kills = self._meter.memory_kills() if self._meter else 0
        # Until we hear of its start a program has used some already, which the group's meter does not tell from ours.
        cpu_ms = max(self._cpu_ms() if self._meter else 0.0, message.cpu_us / 1000)
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
            wall_ms=(self._ended_at - self._started_at) * 1000,
            cpu_ms=cpu_ms,
            memory_peak_bytes=peak,
            memory_limit_hit=memory_kills > 0 or killed_by == "memory",
            stdout_truncated=self._truncated["stdout"],
            stderr_truncated=self._truncated["stderr"],
        )

    async def _feed(self, data: memoryview, *, close: bool) -> None:
        while data := self._offer(data):
            await self._wait_writable(self._input)
        if close:
            self.close_stdin()

    def _offer(self, data: memoryview) -> memoryview:
        """Write to the program's stdin as much as fits now. Returns the rest, which is nothing once stdin is closed."""
        while data and self._input >= 0:
            try:
                data = data[os.write(self._input, data[:READ_BYTES]) :]
            except BlockingIOError:
                return data
            except OSError:  # the program closed its stdin
                self._close_stdin_pipe()
                break
        return data[:0]

    async def _wait_writable(self, descriptor: int) -> None:
        room: asyncio.Future[None] = self._loop.create_future()
        self._stdin_room = room
        self._loop.add_writer(descriptor, _wake, room)
        try:
            await room
        finally:
            self._stdin_room = None
            if descriptor in (self._stdin, self._terminal):
                self._loop.remove_writer(descriptor)

    def _close_stdin_pipe(self) -> None:
        if self._stdin >= 0:
            if self._stdin_room is not None:
                self._loop.remove_writer(self._stdin)
            os.close(self._stdin)
            self._stdin = -1
        if self._stdin_room is not None:
            _wake(self._stdin_room)

    def _stop_clocks(self) -> None:
        if self._meter.memory_event() >= 0:
            self._watcher.remove(self._meter.memory_event())
        for timer in self._timers:
            timer.cancel()
        if self._cpu_timer is not None:
            self._cpu_timer.cancel()


def _check_exit(message: Exited) -> None:
    """Raises: SandboxFailure when the report of the end is not one that a process can have."""
    numbers = (message.cpu_us, message.memory_peak_bytes)
    if not -signal.NSIG < message.status < 256 or message.exceeded not in _EXCEEDED or max(numbers) >= 1 << 63:
        raise SandboxFailure("exit", detail="malformed report")


def _packed_files(command: Command, text: messages.Text) -> tuple[list[bytes], int]:
    """Encode where the files of a command lie. Returns them, and in how many packs. Raises: CommandRefused."""
    layout = messages.layout(messages.PackedFile)
    files: list[bytes] = []
    packs = 0
    try:
        if command.packed is not None:
            files += [
                layout.pack(each.offset, each.size, each.mode, packs, text.add(each.name), 0) for each in command.packed.files
            ]
            packs += 1
        if command.files:
            offset = 0
            for file in command.files:
                files.append(layout.pack(offset, len(file.content), file.mode, packs, text.add(file.name), 0))
                offset += len(file.content)
            packs += 1
    except ValueError as error:
        raise CommandRefused("files", errno.EINVAL, str(error)) from None
    return files, packs


def _start_message(command: Command) -> bytes:
    """Encode the command. Raises: ValueError for a NUL in a string or a name that no variable can have, CommandRefused."""
    if any("=" in name or not name for name in command.env):
        raise ValueError("illegal name of an environment variable")
    told = command.tell if command.capture is None else (command.capture,)
    variables = [f"{name}={value}" for name, value in command.env.items()]
    text = messages.Text((*command.argv, *variables, *(told or ())))
    files, packs = _packed_files(command, text)
    rows, columns = command.terminal or (0, 0)
    head = messages.Start(
        kind=Kind.START,
        flags=(StartFlag.TERMINAL if command.terminal is not None else 0)
        | (StartFlag.CAPTURE if command.capture is not None else 0)
        | (StartFlag.OTHER_PID if command.other_pid else 0),
        rows=rows,
        columns=columns,
        cpu_ms=command.cpu_ms,
        memory_bytes=command.memory_bytes,
        stack_bytes=command.stack_bytes,
        file_size_bytes=command.file_size_bytes,
        processes=command.processes,
        open_files=command.open_files,
        words=len(command.argv),
        variables=len(command.env),
        told=len(told) if told is not None else messages.NO_WORDS,
        packs=packs,
        files=len(files),
        text_bytes=text.bytes,
    )
    return b"".join((messages.pack(head), *files, text.encoded()))


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


def _ignore(_stream: StreamName, _data: bytes) -> None:
    return


def _do_nothing() -> None:
    return
