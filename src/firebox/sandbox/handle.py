"""The asyncio side: starting the launcher, and one sandbox as the server holds it.

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
import subprocess
import sys
import termios
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from firebox.sandbox.cgroups import Meter
from firebox.sandbox.seccomp import Filters, compile_filters
from firebox.sandbox.spec import (
    Command,
    CommandRefused,
    Exit,
    Pack,
    PackedFile,
    SandboxFailure,
    SandboxSpec,
    decode,
    receive,
    send,
    spec_to_message,
)

READ_BYTES = 64 << 10
KILL_PATIENCE_S = 15.0
"""After a kill the kernel should need milliseconds; past this the sandbox is given up and reported."""

_START_LAUNCHER = "import sys; sys.path.insert(0, sys.argv[1]); from firebox.sandbox.launcher import main; main(int(sys.argv[2]))"
_PACK_HEADER_BYTES = 8 << 20
_CPU_CHECK_AT_LEAST_MS = 5.0

_STREAMS_AND_LINK = 4
_DISCARD_BYTES = 1 << 20

StreamName = Literal["stdout", "stderr"]
OutputSink = Callable[[StreamName, bytes], None]


class LauncherProcess:
    """The launcher as a child of the server; started again when it dies.

    run_as: (uid, gid) to start it as another user; only root can. python: the interpreter that runs it. source: the
    folder that holds the package; both must be readable by that user.
    """

    def __init__(
        self, *, uid_base: int = 210_000, run_as: tuple[int, int] | None = None, python: str | None = None, source: str = ""
    ) -> None:
        self._uid_base = uid_base
        self._run_as = run_as
        self._python = python or os.path.realpath(sys.executable)
        self._source = source or str(Path(__file__).resolve().parents[2])
        self._filters: Filters | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._link: socket.socket | None = None
        self._probed: asyncio.Future[dict[str, Any]] | None = None
        self._making: dict[int, asyncio.Future[Sandbox]] = {}
        self._alive: dict[int, asyncio.Event] = {}
        self._next_number = 1
        self._starting = asyncio.Lock()
        self._closed = False
        self.null = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
        """Where sandboxes let output go that nobody will see."""
        self.starts = 0
        """How often a launcher was started; one is normal."""
        self.layers: tuple[str, ...] = ()
        self.cgroups = ""
        self.reasons: tuple[str, ...] = ()
        """Why better kinds of control groups are not used."""

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def alive(self) -> int:
        """Sandboxes that exist, ready or running."""
        return len(self._alive)

    async def start(self) -> None:
        """Start the launcher unless it runs, and wait until it has proved that it can make a sandbox.

        Raises: SandboxFailure with the step that is not possible here.
        """
        async with self._starting:
            if self._link is not None:
                return
            if self._closed:
                raise SandboxFailure("start", detail="the launcher is closed")
            self._spawn()
            assert self._probed is not None  # noqa: S101 - set by _spawn
            try:
                probed = await self._probed
            except SandboxFailure:
                self._lost("the launcher could not make a sandbox")
                raise
            self.layers = tuple(probed["probed"])
            self.cgroups = probed["cgroups"]
            self.reasons = tuple(probed["reasons"])

    def _spawn(self) -> None:
        if self._filters is None:
            try:
                self._filters = compile_filters()
            except (ImportError, RuntimeError) as error:
                raise SandboxFailure(
                    "seccomp", detail=str(error), hint="install libseccomp (Debian: apt install libseccomp2)"
                ) from None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        user, group = self._run_as or (None, None)
        self._process = subprocess.Popen(
            [self._python, "-I", "-S", "-X", "utf8", "-c", _START_LAUNCHER, self._source, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
            env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
            cwd="/",
            start_new_session=True,
            user=user,
            group=group,
            extra_groups=None if self._run_as is None else [],
        )
        theirs.close()
        ours.setblocking(False)
        self.starts += 1
        self._link = ours
        loop = asyncio.get_running_loop()
        self._probed = loop.create_future()
        loop.add_reader(ours.fileno(), self._hear)
        send(ours, {"seccomp": [program.hex() for program in self._filters.programs], "uid_base": self._uid_base})

    async def make(self, specification: SandboxSpec) -> Sandbox:
        """Make a sandbox. Raises: SandboxFailure."""
        await self.start()
        number = self._next_number
        self._next_number += 1
        made: asyncio.Future[Sandbox] = asyncio.get_running_loop().create_future()
        self._making[number] = made
        self._alive[number] = asyncio.Event()
        self._tell({"make": number, "spec": spec_to_message(specification)})
        try:
            return await asyncio.shield(made)
        except asyncio.CancelledError:
            made.add_done_callback(_throw_away)
            raise

    def end(self, number: int) -> None:
        """Have a sandbox killed and everything of it removed. Returns at once."""
        if number in self._alive:
            self._tell({"end": number})

    async def ended(self, number: int) -> None:
        """Wait until nothing of a sandbox is left."""
        if number in self._alive:
            await self._alive[number].wait()

    async def close(self) -> None:
        """End the launcher and with it every sandbox; wait until it is gone."""
        self._closed = True
        process = self._process
        if self._link is not None:
            self._link.shutdown(socket.SHUT_WR)
        if process is not None:
            try:
                await asyncio.to_thread(process.wait, KILL_PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                await asyncio.to_thread(process.wait)
        self._lost("the launcher was closed")
        if self.null >= 0:
            os.close(self.null)
            self.null = -1

    def _tell(self, message: dict[str, Any]) -> None:
        if self._link is None:
            return
        try:
            send(self._link, message)
        except BlockingIOError:
            # The launcher is far behind; the socket's buffer holds hundreds of messages.
            asyncio.get_running_loop().call_later(0.005, self._tell, message)
        except OSError:
            self._lost("the launcher died")

    def _hear(self) -> None:
        while self._link is not None:
            try:
                data, descriptors = receive(self._link)
            except BlockingIOError:
                return
            except OSError:
                data, descriptors = b"", []
            if not data:
                self._lost("the launcher died")
                return
            self._take(decode(data), descriptors)

    def _take(self, message: dict[str, Any], descriptors: list[int]) -> None:
        if "ready" in message:
            number = message["ready"]
            if len(descriptors) != _STREAMS_AND_LINK + len(message["meters"]):
                self._refuse_incomplete(number, descriptors)
                return
            sandbox = Sandbox(self, number, message["pid"], descriptors, message["meters"])
            waiting = self._making.pop(number, None)
            if waiting is None or waiting.done():
                sandbox.close()
            else:
                waiting.set_result(sandbox)
        elif "ended" in message:
            event = self._alive.pop(message["ended"], None)
            if event is not None:
                event.set()
        elif "failed" in message:
            failure = SandboxFailure(message["failed"], message["errno"], message["detail"], message["hint"])
            waiting = self._making.pop(message["number"], None)
            if waiting is not None and not waiting.done():
                waiting.set_exception(failure)
            elif self._probed is not None and not self._probed.done():
                self._probed.set_exception(failure)
            elif message["number"] in self._alive:
                self._alive.pop(message["number"]).set()
        elif "probed" in message and self._probed is not None and not self._probed.done():
            self._probed.set_result(message)

    def _refuse_incomplete(self, number: int, descriptors: list[int]) -> None:
        """Give up a sandbox whose descriptors did not all fit into this process."""
        for descriptor in descriptors:
            os.close(descriptor)
        self.end(number)
        failure = SandboxFailure(
            "descriptors", errno.EMFILE, "this process has too many open files", hint="raise `ulimit -n` or lower `slots`"
        )
        waiting = self._making.pop(number, None)
        if waiting is not None and not waiting.done():
            waiting.set_exception(failure)

    def _lost(self, why: str) -> None:
        """Forget a launcher that is gone. Sandboxes notice by themselves: their links end."""
        if self._link is not None:
            asyncio.get_running_loop().remove_reader(self._link.fileno())
            self._link.close()
            self._link = None
        if self._process is not None and self._process.poll() is None and not self._closed:
            self._process.kill()
            self._process.wait()
        failure = SandboxFailure("launcher", detail=why, hint="it is started again; see the log for its last words")
        if self._probed is not None and not self._probed.done():
            self._probed.set_exception(failure)
        for waiting in self._making.values():
            if not waiting.done():
                waiting.set_exception(failure)
        self._making.clear()
        for event in self._alive.values():
            event.set()
        self._alive.clear()


def _throw_away(made: asyncio.Future[Sandbox]) -> None:
    """Close a sandbox that nobody waits for any more."""
    if not made.cancelled() and made.exception() is None:
        made.result().close()


class Sandbox:
    """One isolated process tree, ready for its only command.

    Life: `run` once, `collect` after it at will, `close` always. Everything else is for while it runs.
    """

    def __init__(self, owner: LauncherProcess, number: int, pid: int, descriptors: Sequence[int], meters: Sequence[str]) -> None:
        self.number = number
        self.pid = pid
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._link = socket.socket(fileno=descriptors[0])
        self._link.setblocking(False)
        self._stdin, stdout, stderr = descriptors[1:4]
        self._streams: dict[StreamName, int] = {"stdout": stdout, "stderr": stderr}
        for descriptor in descriptors[1:4]:
            os.set_blocking(descriptor, False)
        self._meter = Meter(dict(zip(meters, descriptors[4:], strict=True)))
        self._command: Command | None = None
        self._output: OutputSink = _ignore
        self._counts = {"stdout": 0, "stderr": 0}
        self._truncated = {"stdout": False, "stderr": False}
        self._paused = False
        self._started: asyncio.Future[None] = self._loop.create_future()
        self._finished: asyncio.Future[None] = self._loop.create_future()
        self._exit_message: dict[str, Any] | None = None
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
        """Tell whether a sandbox that is kept ready has ended meanwhile."""
        try:
            return not self._link.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

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
            if command.stdin:
                feeding = self._loop.create_task(self._feed(command.stdin, close=not command.interactive))
                self._finished.add_done_callback(lambda _finished: feeding.cancel())
            elif not command.interactive:
                self.close_stdin()
            await self._finished
        except asyncio.CancelledError:
            self.kill("cancelled")
            raise
        finally:
            self._stop_clocks()
        return self._exit()

    async def write_stdin(self, data: bytes) -> None:
        """Write to the program's stdin; waits while it does not read. Ignored once it is closed."""
        await self._feed(data, close=False)

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
                send(self._link, {"signal": number})
            except OSError:
                return  # it has just ended, or a flood of signals: what does not fit is lost, as signals are

    def resize(self, rows: int, columns: int) -> None:
        if self._terminal >= 0:
            fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def pause(self) -> None:
        """Stop reading output: the program blocks when its pipe is full."""
        if not self._paused:
            self._paused = True
            for descriptor in self._streams.values():
                self._loop.remove_reader(descriptor)

    def resume(self) -> None:
        if self._paused:
            self._paused = False
            self._listen()

    def kill(self, why: str) -> None:
        """Kill the whole tree. why: goes to `Exit.killed_by`; the first one counts."""
        if self._killed_by or self._finished.done() or self._exit_message is not None:
            return
        self._killed_by = why
        self._owner.end(self.number)
        self.resume()
        self._timers.append(self._loop.call_later(KILL_PATIENCE_S, self._give_up))

    async def collect(self, patterns: Sequence[str], max_bytes: int, max_files: int) -> tuple[Pack, list[tuple[str, str]]]:
        """Take regular files out of the working directory after the run. Returns them as a pack, and what was left out and why.

        The caller closes the pack's descriptor. Raises: SandboxFailure.
        """
        if self._exit_message is None:
            raise SandboxFailure("collect", detail="the program was killed with its sandbox")
        readable, writable = os.pipe()
        try:
            message = {"collect": list(patterns), "max_bytes": max_bytes, "max_files": max_files}
            send(self._link, message, (writable,))
        except OSError as error:
            os.close(readable)
            raise SandboxFailure("collect", error.errno or 0, str(error)) from None
        finally:
            os.close(writable)
        reader = _PackReader(readable, max_bytes, max_files)
        return await reader.read()

    def close(self) -> None:
        """Let go of everything; what still runs is killed. Returns at once, `LauncherProcess.ended` waits."""
        if self._closed:
            return
        self._closed = True
        self._stop_clocks()
        self._owner.end(self.number)
        for descriptor in self._streams.values():
            self._loop.remove_reader(descriptor)
            os.close(descriptor)
        self._streams.clear()
        self._close_stdin_pipe()
        self._loop.remove_reader(self._link.fileno())
        self._link.close()
        self._meter.close()
        if not self._started.done():
            self._started.cancel()
        if not self._finished.done():
            self._finished.cancel()

    def _start(self, command: Command) -> None:
        # Everything that travels by descriptor: the pack of an earlier stage, and one memfd with the job's own files.
        packs: list[list[tuple[str, int, int, int]]] = []
        descriptors: list[int] = []
        own = -1
        try:
            if self._meter:
                self._meter.limit(command.memory_bytes, command.processes)
            if command.packed is not None:
                packs.append([(file.name, file.offset, file.size, file.mode) for file in command.packed.files])
                descriptors.append(command.packed.descriptor)
            if command.files:
                own = os.memfd_create("files", os.MFD_CLOEXEC)
                offset, index = 0, list[tuple[str, int, int, int]]()
                for file in command.files:
                    index.append((file.name, offset, len(file.content), file.mode))
                    offset += _write_all(own, file.content)
                packs.append(index)
                descriptors.append(own)
            send(self._link, _start_message(command, packs), descriptors)
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                raise CommandRefused(
                    "start", errno.E2BIG, "arguments, environment and file names are too long together"
                ) from None
            raise SandboxFailure("start", error.errno or 0, str(error)) from None
        finally:
            if own >= 0:
                os.close(own)
        self._loop.add_reader(self._link.fileno(), self._hear)
        self._listen()

    def _listen(self) -> None:
        for name, descriptor in self._streams.items():
            self._loop.add_reader(descriptor, self._read, name)

    def _hear(self) -> None:
        """Take what PID 1 says. It shares the sandbox with hostile code: nothing is believed that has the wrong shape."""
        try:
            data, descriptors = receive(self._link)
        except BlockingIOError:
            return
        except OSError:
            data, descriptors = b"", []
        try:
            message = decode(data) if data else {}
        except SandboxFailure as failure:
            self._break(failure)
            message = {}
        if "started" in message and not self._started.done():
            self._begin(descriptors)
        elif "exited" in message and self._exit_message is None:
            if not isinstance(message["exited"], int) or not isinstance(message.get("cpu_ms"), int | float):
                self._break(SandboxFailure("exit", detail="malformed report"))
                return
            self._ended_at = self._loop.time()
            self._exit_message = message
            self.resume()
            self._finish_when_complete()
        elif "refused" in message and not self._started.done():
            detail, number = str(message.get("detail", "")), message.get("errno")
            self._started.set_exception(CommandRefused(str(message["refused"]), number if isinstance(number, int) else 0, detail))
        else:
            for descriptor in descriptors:
                os.close(descriptor)
            self._link_open = False
            self._loop.remove_reader(self._link.fileno())
            self._ended_at = self._ended_at or self._loop.time()
            if message.get("failed"):
                self._break(SandboxFailure(str(message["failed"]), detail=str(message.get("detail", ""))))
            elif not self._started.done():
                self._break(SandboxFailure("start", detail="the sandbox ended before the program started"))
            self._finish_when_complete()

    def _begin(self, descriptors: Sequence[int]) -> None:
        assert self._command is not None  # noqa: S101 - set by run
        if descriptors:
            self._use_terminal(descriptors[0])
        self._cpu_before_ms = self._meter.cpu_ms() if self._meter else 0.0
        self._started_at = self._loop.time()
        self._timers.append(self._loop.call_later(self._command.wall_ms / 1000, self.kill, "wall_time"))
        if self._command.cpu_ms and self._meter:
            self._arm_cpu_clock(self._command.cpu_ms)
        self._started.set_result(None)

    def _use_terminal(self, master: int) -> None:
        """Read and write the terminal instead of the pipes."""
        os.set_blocking(master, False)
        for descriptor in self._streams.values():
            self._loop.remove_reader(descriptor)
            os.close(descriptor)
        self._close_stdin_pipe()
        self._streams = {"stdout": master}
        self._terminal = master
        self._listen()

    def _arm_cpu_clock(self, remaining_ms: float) -> None:
        """Look again when the limit could be reached at the earliest: all processors busy from now on."""
        pause_ms = max(remaining_ms / (os.cpu_count() or 1), _CPU_CHECK_AT_LEAST_MS)
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
            self._loop.remove_reader(descriptor)
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
        self._owner.end(self.number)

    def _give_up(self) -> None:
        if self._link_open:  # else everything is dead and only a slow reader of the output is left
            self._break(SandboxFailure("kill", errno.ETIMEDOUT, "the processes did not end after SIGKILL"))

    def _exit(self) -> Exit:
        message, command = self._exit_message, self._command
        assert command is not None  # noqa: S101 - set by run
        code: int | None = message["exited"] if message is not None else -signal.SIGKILL
        memory_kills = self._meter.memory_kills() if self._meter else 0
        cpu_ms = self._cpu_ms() if self._meter else (message or {}).get("cpu_ms", 0.0)
        peak = self._meter.memory_peak_bytes() if self._meter else (message or {}).get("memory_peak_bytes", 0)
        killed_by = self._killed_by
        exceeded = (message or {}).get("exceeded", "")
        if not killed_by and exceeded in ("memory", "cpu_time"):
            killed_by = exceeded
        if not killed_by and memory_kills and code != 0:
            killed_by = "memory"
        if not killed_by and code in (-signal.SIGXCPU, -signal.SIGKILL) and command.cpu_ms and cpu_ms >= command.cpu_ms:
            killed_by = "cpu_time"  # the backstop, RLIMIT_CPU
        if message is None and not killed_by:
            raise SandboxFailure("run", detail="the sandbox ended without a report", hint="was the launcher killed?")
        return Exit(
            status=code if code is not None and code >= 0 else None,
            signal=-code if code is not None and code < 0 else None,
            killed_by=killed_by,
            wall_ms=(self._ended_at - self._started_at) * 1000,
            cpu_ms=float(cpu_ms),
            memory_peak_bytes=int(peak),
            memory_limit_hit=memory_kills > 0 or exceeded == "memory",
            stdout_truncated=self._truncated["stdout"],
            stderr_truncated=self._truncated["stderr"],
        )

    async def _feed(self, data: bytes, *, close: bool) -> None:
        view = memoryview(data)
        while view:
            target = self._terminal if self._terminal >= 0 else self._stdin
            if target < 0:
                return
            try:
                view = view[os.write(target, view[:READ_BYTES]) :]
            except BlockingIOError:
                await self._wait_writable(target)
            except OSError:  # the program closed its stdin
                self._close_stdin_pipe()
                return
        if close:
            self.close_stdin()

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
            self._loop.remove_writer(self._stdin)
            os.close(self._stdin)
            self._stdin = -1
        if self._stdin_room is not None:
            _wake(self._stdin_room)

    def _stop_clocks(self) -> None:
        for timer in self._timers:
            timer.cancel()
        if self._cpu_timer is not None:
            self._cpu_timer.cancel()


class _PackReader:
    """Reads what PID 1 collects into a memfd, refusing whatever is not a well-formed pack within its bounds."""

    def __init__(self, readable: int, max_bytes: int, max_files: int) -> None:
        self._readable = readable
        self._max_bytes = max_bytes
        self._max_files = max_files
        os.set_blocking(readable, False)
        self._loop = asyncio.get_running_loop()
        self._head = bytearray()
        self._index: dict[str, Any] | None = None
        self._contents = os.memfd_create("pack", os.MFD_CLOEXEC)
        self._received = 0
        self._complete: asyncio.Future[None] = self._loop.create_future()

    async def read(self) -> tuple[Pack, list[tuple[str, str]]]:
        self._loop.add_reader(self._readable, self._take)
        try:
            await asyncio.wait_for(self._complete, KILL_PATIENCE_S)
            return self._checked()
        except TimeoutError:
            os.close(self._contents)
            raise SandboxFailure("collect", errno.ETIMEDOUT, "the files did not arrive") from None
        except BaseException:
            os.close(self._contents)
            raise
        finally:
            self._loop.remove_reader(self._readable)
            os.close(self._readable)

    def _take(self) -> None:
        try:
            data = os.read(self._readable, READ_BYTES)
            if not data:
                self._loop.remove_reader(self._readable)
                self._complete.set_result(None)
                return
            if self._index is None:
                self._head += data
                data = self._parse_head()
            self._received += _write_all(self._contents, data)
            if self._received > self._max_bytes:
                raise SandboxFailure("collect", detail="more bytes than allowed")
        except BlockingIOError:
            return
        except (OSError, SandboxFailure) as error:
            self._loop.remove_reader(self._readable)
            failure = error if isinstance(error, SandboxFailure) else SandboxFailure("collect", detail=str(error))
            self._complete.set_exception(failure)

    def _parse_head(self) -> bytes:
        if len(self._head) < 4:
            return b""
        (length,) = struct.unpack_from("<I", self._head)
        if length > _PACK_HEADER_BYTES:
            raise SandboxFailure("collect", detail="index too long")
        if len(self._head) < 4 + length:
            return b""
        self._index = decode(bytes(self._head[4 : 4 + length]))
        return bytes(self._head[4 + length :])

    def _checked(self) -> tuple[Pack, list[tuple[str, str]]]:
        if self._index is None:
            raise SandboxFailure("collect", detail="no index")
        files: list[PackedFile] = []
        offset = 0
        try:
            for name, size, mode in self._index["files"]:
                parts = str(name).split("/")
                if not isinstance(size, int) or size < 0 or not isinstance(mode, int) or mode & ~0o777:
                    raise ValueError("size or mode")
                if not all(parts) or ".." in parts or "." in parts or "\0" in str(name):
                    raise ValueError("name")
                files.append(PackedFile(str(name), offset, size, mode))
                offset += size
            skipped = [(str(name), str(why)) for name, why in self._index["skipped"]]
        except (KeyError, TypeError, ValueError) as error:
            raise SandboxFailure("collect", detail=f"malformed index: {error}") from None
        if offset != self._received or len(files) > self._max_files:
            raise SandboxFailure("collect", detail="the contents do not match their index")
        return Pack(self._contents, tuple(files)), skipped


def _start_message(command: Command, packs: list[list[tuple[str, int, int, int]]]) -> dict[str, Any]:
    return {
        "argv": command.argv,
        "env": dict(command.env),
        "packs": packs,
        "terminal": command.terminal,
        "cpu_ms": command.cpu_ms,
        "memory_bytes": command.memory_bytes,
        "processes": command.processes,
        "open_files": command.open_files,
        "file_size_bytes": command.file_size_bytes,
    }


def _write_all(descriptor: int, data: bytes) -> int:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    return len(data)


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


def _ignore(_stream: StreamName, _data: bytes) -> None:
    return
